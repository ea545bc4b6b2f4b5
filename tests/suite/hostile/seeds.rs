//! The seeds of the fuzzers: small files of every kind.

use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, ImageFormat};
use padim::backbone::{EfficientNetConfig, EfficientNetStage};
use padim::gaussian::{Precision, Storage};
use padim::preprocess::{FrameFormat, FrameLayout, RegionOfInterest};
use padim::{Backbone, CalibrationConfig, Padim, Result, image};

use super::checks::{self, Squares};
use super::{corpus, squares_config, tiny};
use crate::devices;

/// Writes the seeds of the fuzzers. They are the same every time.
#[test]
#[ignore = "run by hand: it writes into fuzz/corpus"]
pub fn write_seeds() {
    let seeds = [
        ("detector_file", detector_seeds()),
        ("weights_safetensors", vec![safetensors()]),
        ("weights_pth", pickle_seeds()),
        ("image", image_seeds()),
        ("frame", frame_seeds()),
        ("mask", mask_seeds()),
        ("table", table_seeds()),
    ];
    for (target, files) in seeds {
        let folder = corpus().join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, bytes) in files.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:02}")), bytes).unwrap();
        }
    }
}

fn detector_seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut files = Vec::new();
    let mut add = |save: &dyn Fn(&Path) -> Result<()>| {
        save(&path).unwrap();
        files.push(std::fs::read(&path).unwrap());
    };
    let padim = |storage| Padim::new(squares_config(storage), Squares::new()).unwrap();
    let forms = [
        (Storage::FullInverse, 5),
        (Storage::Triangle(Precision::F32), 5),
        (Storage::Triangle(Precision::F16), 5),
        (Storage::LowRank(Precision::F32), 2),
        (Storage::LowRank(Precision::F16), 2),
        (Storage::Principal(Precision::F16), 5),
        (Storage::Diagonal, 5),
    ];
    for (storage, images) in forms {
        let detector = padim(storage).fit((0..images).map(tiny)).unwrap();
        add(&|path| detector.save_without_backbone(path));
    }
    // With every kind of section.
    let mask = image::GrayImage::from_fn(8, 8, |x, _| image::Luma([if x < 4 { 255 } else { 0 }]));
    let region = RegionOfInterest::from_mask(&mask.into());
    let images = || (0..6).map(tiny);
    let whole = padim(Storage::Auto).with_region(&region).unwrap();
    let whole = whole.fit_projection(2, images()).unwrap();
    let fit = whole.partial_fit(images()).unwrap();
    add(&|path| fit.save(path));
    let few = padim(Storage::Auto).partial_fit((0..2).map(tiny)).unwrap();
    add(&|path| few.save(path));
    let mut detector = fit.finish_extendable().unwrap();
    let config = CalibrationConfig::default().with_image_false_alarm_rate(0.2);
    detector.calibrate((6..12).map(tiny), &config).unwrap();
    add(&|path| detector.save_without_backbone(path));
    // With embedded networks.
    let device = &devices()[0];
    let residual = checks::network().untrained(1, device).unwrap();
    let efficient = EfficientNetConfig {
        stem_channels: 2,
        stages: vec![EfficientNetStage::new(1, 2, 1, 3, 1)],
        blocks: vec![1],
    };
    let networks: [Arc<dyn Backbone>; 2] =
        [Arc::new(residual), Arc::new(efficient.untrained(1, device).unwrap())];
    for network in networks {
        let padim = Padim::new(squares_config(Storage::Auto), network).unwrap();
        let detector = padim.fit(images()).unwrap();
        add(&|path| detector.save(path));
    }
    files
}

/// The names and shapes of the tensors of [`checks::network`].
pub fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    let convolutions = [
        ("conv1", "bn1", vec![2, 3, 7, 7]),
        ("layer1.0.conv1", "layer1.0.bn1", vec![2, 2, 3, 3]),
        ("layer1.0.conv2", "layer1.0.bn2", vec![2, 2, 3, 3]),
    ];
    for (convolution, norm, shape) in convolutions {
        tensors.push((format!("{convolution}.weight"), shape));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            tensors.push((format!("{norm}.{part}"), vec![2]));
        }
    }
    tensors
}

pub fn safetensors() -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors() {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        let entry =
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name, entry);
    }
    let header = serde_json::Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0x3C; end]].concat()
}

/// A pickle like that of `torch.save`, for a state dict whose tensors are all in storage `0`.
pub fn pickled(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    fn int(pickle: &mut Vec<u8>, value: usize) {
        pickle.push(b'J');
        pickle.extend((value as i32).to_le_bytes());
    }
    fn text(pickle: &mut Vec<u8>, value: &str) {
        pickle.push(b'X');
        pickle.extend((value.len() as u32).to_le_bytes());
        pickle.extend(value.as_bytes());
    }
    let mut pickle = b"\x80\x02}(".to_vec();
    for (name, shape) in tensors {
        text(&mut pickle, name);
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(b"ctorch\nFloatStorage\n");
        text(&mut pickle, "0");
        text(&mut pickle, "cpu");
        int(&mut pickle, 1024);
        pickle.extend(b"tQ");
        int(&mut pickle, 0);
        pickle.push(b'(');
        shape.iter().for_each(|&side| int(&mut pickle, side));
        pickle.extend(b"t(");
        (0..shape.len()).for_each(|i| int(&mut pickle, shape[i + 1..].iter().product()));
        pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(b"u.");
    pickle
}

fn pickle_seeds() -> Vec<Vec<u8>> {
    let pickle = pickled(&tensors());
    let loader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/loader");
    let mut seeds = vec![checks::checkpoint(&pickle), pickle];
    for file in ["edge_legacy.pth", "edge_zip.pth", "edge_zip_proto4.pth", "reject_module_zip.pth"]
    {
        seeds.push(std::fs::read(loader.join(file)).unwrap());
    }
    seeds
}

/// A small frame of each format, packed and with a gap between rows; the head is that of [`checks::frame`].
fn frame_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for format in 0..FrameFormat::ALL.len() as u8 {
        for gap in [0, 3] {
            let layout = FrameLayout::new(FrameFormat::ALL[usize::from(format)], [3, 4]);
            let row = layout.stride().unwrap();
            let stride = if gap == 0 { 0 } else { row + gap };
            let head = [format, 3, 0, 4, 0, stride as u8, 0];
            let pixels = (0..3 * (row + gap)).map(|i| (37 * i) as u8);
            seeds.push(head.into_iter().chain(pixels).collect());
        }
    }
    seeds
}

/// Small masks: labels, two values, colors, alpha alone, 16 bits, floating point.
fn mask_seeds() -> Vec<Vec<u8>> {
    let gray = |values: [u8; 2]| {
        let pixel = |x, y| image::Luma([values[usize::from((x + y) % 3 == 0)]]);
        DynamicImage::from(image::GrayImage::from_fn(5, 4, pixel))
    };
    let clear = |x, _| image::Rgba([0, 0, 0, if x < 2 { 0 } else { 255 }]);
    let masks = [
        (gray([0, 1]), ImageFormat::Png),
        (gray([0, 255]), ImageFormat::Bmp),
        (gray([7, 200]), ImageFormat::Png),
        (tiny(2), ImageFormat::Png),
        (image::RgbaImage::from_fn(5, 4, clear).into(), ImageFormat::Png),
        (gray([0, 1]).to_luma16().into(), ImageFormat::Png),
        (gray([0, 1]).to_rgb32f().into(), ImageFormat::Tiff),
        (gray([0, 255]), ImageFormat::Jpeg),
    ];
    let encoded = |(mask, format): (DynamicImage, ImageFormat)| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        mask.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    masks.into_iter().map(encoded).collect()
}

/// Lists of images.
fn table_seeds() -> Vec<Vec<u8>> {
    let lists = [
        "path,split,label,mask,category\na.png,train,good,,screw\nb.png,test,scratch,m.png,screw\n",
        "path,split,label\na.png,train,OK\nb.png,test,NG\nc.png,test,fine\n",
        "\u{feff}label,path,split\r\n0,\"a, b.png\",train\r\n1,c.png,test\r\n",
        "path,split\na.png,train\na.png,train\n",
        "path,split,label\na.png,train,scratch\n",
    ];
    lists.into_iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Small pictures of every format and pixel type.
fn image_seeds() -> Vec<Vec<u8>> {
    let rgb = tiny(3);
    let kinds: [(ImageFormat, &[DynamicImage]); 5] = [
        (
            ImageFormat::Png,
            &[
                rgb.clone(),
                rgb.to_luma8().into(),
                rgb.to_luma_alpha8().into(),
                rgb.to_luma16().into(),
                rgb.to_rgba16().into(),
            ],
        ),
        (ImageFormat::Jpeg, &[rgb.clone(), rgb.to_luma8().into()]),
        (ImageFormat::Bmp, &[rgb.clone(), rgb.to_luma8().into(), rgb.to_rgba8().into()]),
        (
            ImageFormat::Tiff,
            &[rgb.clone(), rgb.to_luma16().into(), rgb.to_rgb16().into(), rgb.to_rgb32f().into()],
        ),
        (ImageFormat::WebP, &[rgb.clone(), rgb.to_rgba8().into()]),
    ];
    let mut files = Vec::new();
    for (format, images) in kinds {
        for image in images {
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).unwrap();
            files.push(bytes.into_inner());
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/png");
    for file in ["bilevel_1bit.png", "palette.png"] {
        files.push(std::fs::read(golden.join(file)).unwrap());
    }
    files
}
