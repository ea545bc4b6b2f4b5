//! `golden/preprocess.*` and `golden/png`.

use image::{DynamicImage, GrayImage, RgbImage};
use padim::image;
use padim::preprocess::{
    Alpha, Filter, Levels, Normalization, PreprocessConfig, Preprocessor, Resize, ResizeArithmetic,
    decode_file, to_rgb8,
};

use crate::golden;

fn filter(name: &str) -> Filter {
    match name {
        "nearest" => Filter::Nearest,
        "box" => Filter::Box,
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        "lanczos" => Filter::Lanczos,
        other => panic!("unknown filter {other}"),
    }
}

fn picture(height: usize, width: usize) -> DynamicImage {
    let pixels = golden::picture(height, width, 3);
    RgbImage::from_raw(width as u32, height as u32, pixels).unwrap().into()
}

fn preprocessor(config: PreprocessConfig) -> Preprocessor {
    Preprocessor::new(config, Normalization::IMAGENET).unwrap()
}

fn pair(value: &serde_json::Value) -> [usize; 2] {
    serde_json::from_value(value.clone()).unwrap()
}

/// The sizes of the golden values.
fn cropped() -> PreprocessConfig {
    PreprocessConfig::default().with_resize(Resize::ShortSide(256)).with_crop(Some(224))
}

#[test]
fn golden_preprocess_pil_small_pictures_bit_exact() {
    let meta = golden::json("preprocess.json");
    let tensors = golden::tensors("preprocess.safetensors");
    for case in meta["small"].as_array().unwrap() {
        let [h, w] = pair(&case["src"]);
        let preprocessor = preprocessor(
            PreprocessConfig::default()
                .with_resize(Resize::ShortSide(32))
                .with_crop(Some(27))
                .with_filter(filter(case["filter"].as_str().unwrap())),
        );
        let name = case["name"].as_str().unwrap();
        assert_eq!(Resize::ShortSide(32).resized([h, w]), pair(&case["resized"]), "{name}");
        let picture = preprocessor.crop_picture(&picture(h, w)).unwrap();
        assert!(*picture.as_raw() == tensors[name].u8(), "{name}");
    }
}

#[test]
fn golden_preprocess_pil_large_pictures_bit_exact() {
    for case in golden::json("preprocess.json")["big"].as_array().unwrap() {
        let [h, w] = pair(&case["src"]);
        let preprocessor =
            preprocessor(cropped().with_filter(filter(case["filter"].as_str().unwrap())));
        let picture = preprocessor.crop_picture(&picture(h, w)).unwrap();
        let hash = format!("{:016x}", golden::fnv1a64(picture.as_raw()));
        assert_eq!(hash, case["fnv1a64"], "{case}");
        let pixel: [u8; 3] = serde_json::from_value(case["at_100_57"].clone()).unwrap();
        assert_eq!(picture.get_pixel(57, 100).0, pixel);
    }
}

#[test]
fn golden_preprocess_nearest_mask() {
    let case = &golden::json("preprocess.json")["mask_nearest_300"];
    let red = golden::picture(300, 300, 1);
    let mask = red.iter().map(|&v| if v > 127 { 255 } else { 0 }).collect();
    let mask = GrayImage::from_raw(300, 300, mask).unwrap();
    let mask = preprocessor(cropped()).process_mask(&mask.into()).unwrap();
    let bytes: Vec<u8> = mask.iter().map(|&m| m.into()).collect();
    assert_eq!(mask.iter().filter(|&&m| m).count(), case["ones"]);
    assert_eq!(format!("{:016x}", golden::fnv1a64(&bytes)), case["fnv1a64_of_01_bytes"]);
}

#[test]
fn golden_preprocess_torchvision_tensors() {
    let tensors = golden::tensors("preprocess.safetensors");
    for name in golden::json("preprocess.json")["tensor"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        // tvtensor_<filter>_aa<0|1>_<h>x<w>_to_32x28
        let parts: Vec<&str> = name.split('_').collect();
        let (h, w) = parts[3].split_once('x').unwrap();
        let config = PreprocessConfig::default()
            .with_resize(Resize::Exact { height: 32, width: 28 })
            .with_crop(None)
            .with_filter(filter(parts[1]))
            .with_arithmetic(ResizeArithmetic::Float { antialias: parts[2] == "aa1" });
        let plain = Normalization { mean: [0.0; 3], std: [1.0; 3] };
        let picture = picture(h.parse().unwrap(), w.parse().unwrap());
        let input = Preprocessor::new(config, plain).unwrap().process(&picture).unwrap();
        let error = golden::relative_error(&input.values, &tensors[name].values);
        // Torch computes its weights in f32, we in f64.
        assert!(error < 5e-6, "{name}: {error:.1e}");
    }
}

#[test]
fn golden_preprocess_normalised() {
    let case = &golden::json("preprocess.json")["normalised_300_bilinear"];
    let input = preprocessor(cropped()).process(&picture(300, 300)).unwrap();
    let expect = |values: &[f32], key: &str| {
        let expected: Vec<f64> = serde_json::from_value(case[key].clone()).unwrap();
        assert!(golden::relative_error(values, &expected) == 0.0, "{key}: {values:?}");
    };
    expect(&input.values[..4], "at_c0");
    expect(&input.values[input.values.len() - 4..], "at_c2");
    let mean = input.values.iter().map(|&v| f64::from(v)).sum::<f64>() / input.values.len() as f64;
    assert!((mean - case["stats"]["mean"].as_f64().unwrap()).abs() < 1e-9);
}

#[test]
fn golden_png_kinds_decode_as_in_pil() {
    let tensors = golden::tensors("preprocess.safetensors");
    let pil = PreprocessConfig::default().with_levels(Levels::Pil).with_alpha(Alpha::Drop);
    for kind in ["rgb", "gray", "rgba", "palette", "bilevel_1bit", "gray16"] {
        let image = decode_file(golden::path(&format!("png/{kind}.png"))).unwrap();
        let rgb = to_rgb8(&image, &pil).unwrap();
        assert!(*rgb.as_raw() == tensors[&format!("decode_{kind}")].u8(), "{kind}");
    }
    // PIL clips 16-bit gray to white. By default, this crate scales it to 8 bits.
    let image = decode_file(golden::path("png/gray16.png")).unwrap();
    let rgb = to_rgb8(&image, &PreprocessConfig::default()).unwrap();
    assert!(*rgb.as_raw() == tensors["decode_gray"].u8());
}
