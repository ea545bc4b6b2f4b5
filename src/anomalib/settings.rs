//! The settings in a checkpoint that are plain data.

use std::collections::HashMap;
use std::path::Path;

use pytorch_reader::{PickleValue, PytorchReader};

use crate::detector::PadimConfig;
use crate::error::{Error, Result};
use crate::preprocess::{Normalization, PreprocessConfig, Resize, ResizeArithmetic};
use crate::resample::Filter;

/// The settings of a checkpoint. A state dict has none, so it gives the defaults.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub layers: Option<Vec<usize>>,
    pub preprocess: Option<PreprocessConfig>,
    /// For images and for pixels.
    pub sensitivities: [f32; 2],
    pub normalizes: bool,
    pub decides: bool,
    pub matches: bool,
}

type Fields = HashMap<String, PickleValue>;

impl Settings {
    /// Reads the settings of a checkpoint file.
    pub fn read(path: &Path) -> Result<Self> {
        // A safetensors file has only tensors. Damaged files were rejected when the tensors were read.
        match PytorchReader::read_pickle_data(path, None) {
            Ok(PickleValue::Dict(fields)) => Self::parse(&fields),
            _ => Self::parse(&Fields::new()),
        }
    }

    fn parse(fields: &Fields) -> Result<Self> {
        let scores = section(fields, "anomalib_post_processor_config");
        let flag = |name: &str| match scores.and_then(|scores| scores.get(name)) {
            Some(PickleValue::Bool(value)) => *value,
            _ => true,
        };
        let sensitivity =
            |name: &str| scores.and_then(|scores| number(scores.get(name)?)).unwrap_or(0.5);
        let parameters = section(fields, "hyper_parameters");
        check_network(parameters)?;
        Ok(Self {
            layers: layers(parameters)?,
            preprocess: section(fields, "anomalib_pre_processor_config")
                .and_then(|config| config.get("transform"))
                .map(preprocess)
                .transpose()?
                .flatten(),
            sensitivities: [sensitivity("image_sensitivity"), sensitivity("pixel_sensitivity")],
            normalizes: flag("enable_normalization"),
            decides: flag("enable_thresholding"),
            matches: flag("enable_threshold_matching"),
        })
    }
}

fn section<'a>(fields: &'a Fields, name: &str) -> Option<&'a Fields> {
    match fields.get(name) {
        Some(PickleValue::Dict(section)) => Some(section),
        _ => None,
    }
}

fn number(value: &PickleValue) -> Option<f32> {
    match value {
        PickleValue::Float(value) => Some(*value as f32),
        PickleValue::Int(value) => Some(*value as f32),
        _ => None,
    }
}

/// Rejects networks with the tensors of a ResNet, but other operations.
fn check_network(parameters: Option<&Fields>) -> Result<()> {
    let Some(PickleValue::String(name)) = parameters.and_then(|fields| fields.get("backbone"))
    else {
        return Ok(());
    };
    // timm appends the name of the weights after a dot.
    let network = name.split('.').next().unwrap_or_default();
    let network = network.strip_prefix("tv_").unwrap_or(network);
    const KNOWN: [&str; 7] = [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "wide_resnet50_2",
        "wide_resnet101_2",
    ];
    if KNOWN.contains(&network) {
        return Ok(());
    }
    let reason = format!("{name} cannot be converted; {} can", KNOWN.join(", "));
    Err(Error::config("backbone", reason))
}

fn layers(parameters: Option<&Fields>) -> Result<Option<Vec<usize>>> {
    let Some(PickleValue::List(names)) = parameters.and_then(|fields| fields.get("layers")) else {
        return Ok(None);
    };
    let layer = |name: &PickleValue| match name {
        PickleValue::String(name) => name.strip_prefix("layer")?.parse().ok(),
        _ => None,
    };
    names.iter().map(layer).collect::<Option<_>>().map(Some).ok_or_else(|| {
        Error::config("layers", format!("must be layer1, layer2 and layer3, got {names:?}"))
    })
}

/// Converts a torchvision transform to a preprocessing; `None` if anomalib used none.
fn preprocess(transform: &PickleValue) -> Result<Option<PreprocessConfig>> {
    let mut steps = Vec::new();
    flatten(transform, &mut steps)?;
    if steps.is_empty() {
        return Ok(None);
    }
    let mut config = PreprocessConfig { crop: None, ..PadimConfig::anomalib().preprocess };
    // Resize, then crop, then normalize.
    let mut done = 0;
    for (class, arguments) in steps {
        let name = class.rsplit('.').next().unwrap_or_default();
        let rank = match name {
            "Resize" => 1,
            "CenterCrop" => 2,
            "Normalize" => 3,
            _ => 0,
        };
        if rank <= done || (rank == 2 && done == 0) {
            let reason = format!(
                "the step {name} is not supported here; use Resize, CenterCrop and Normalize, \
                 in this order"
            );
            return Err(Error::config("preprocess", reason));
        }
        done = rank;
        match name {
            "Resize" => resize(arguments, &mut config)?,
            "CenterCrop" => {
                let side = sides(arguments).filter(|sides| sides.iter().all(|s| *s == sides[0]));
                let side = side.ok_or_else(|| unknown("a crop", arguments))?;
                config.crop = side.first().copied();
            }
            _ => normalize(arguments)?,
        }
    }
    if done != 3 {
        let reason = "the images are not normalised, which this crate always does";
        return Err(Error::config("preprocess", reason));
    }
    Ok(Some(config))
}

/// Lists the transforms of a composition in their order, with their arguments.
fn flatten<'a>(value: &'a PickleValue, steps: &mut Vec<(&'a str, &'a Fields)>) -> Result<()> {
    let PickleValue::Dict(fields) = value else {
        return match value {
            PickleValue::None => Ok(()),
            other => Err(Error::config("preprocess", format!("cannot be read: {other:?}"))),
        };
    };
    let (Some(PickleValue::String(class)), Some(PickleValue::Dict(arguments))) =
        (fields.get("class_path"), fields.get("init_args"))
    else {
        return Err(unknown("a transform", fields));
    };
    match arguments.get("transforms") {
        Some(PickleValue::List(parts)) if class.ends_with(".Compose") => {
            parts.iter().try_for_each(|part| flatten(part, steps))
        }
        _ => {
            steps.push((class, arguments));
            Ok(())
        }
    }
}

fn unknown(what: &str, arguments: &Fields) -> Error {
    let mut arguments: Vec<_> = arguments.iter().collect();
    arguments.sort_by_key(|(name, _)| name.as_str());
    Error::config("preprocess", format!("{what} with {arguments:?} is not supported"))
}

/// The argument `size`: one or two positive integers.
fn sides(arguments: &Fields) -> Option<Vec<usize>> {
    let side = |value: &PickleValue| match value {
        PickleValue::Int(side) => usize::try_from(*side).ok().filter(|&side| side > 0),
        _ => None,
    };
    let sides: Vec<usize> = match arguments.get("size")? {
        PickleValue::List(values) => values.iter().map(side).collect::<Option<_>>()?,
        value => vec![side(value)?],
    };
    (1..=2).contains(&sides.len()).then_some(sides)
}

fn resize(arguments: &Fields, config: &mut PreprocessConfig) -> Result<()> {
    let fail = || unknown("a resize", arguments);
    config.resize = match *sides(arguments).ok_or_else(fail)?.as_slice() {
        [height, width] => Resize::Exact { height, width },
        [side] => Resize::ShortSide(side),
        _ => return Err(fail()),
    };
    config.filter = match arguments.get("interpolation") {
        Some(PickleValue::String(name)) if name == "bilinear" => Filter::Bilinear,
        Some(PickleValue::String(name)) if name == "bicubic" => Filter::Bicubic,
        None => Filter::Bilinear,
        _ => return Err(fail()),
    };
    let antialias = match arguments.get("antialias") {
        Some(PickleValue::Bool(antialias)) => *antialias,
        None => true,
        _ => return Err(fail()),
    };
    config.arithmetic = ResizeArithmetic::Float { antialias };
    matches!(arguments.get("max_size"), None | Some(PickleValue::None))
        .then_some(())
        .ok_or_else(fail)
}

/// Checks that the statistics are ImageNet's, which the networks of this crate expect.
fn normalize(arguments: &Fields) -> Result<()> {
    let Normalization { mean, std } = Normalization::IMAGENET;
    let same = |name: &str, expected: [f32; 3]| {
        let Some(PickleValue::List(values)) = arguments.get(name) else { return false };
        let close = |(value, expected): (&PickleValue, &f32)| {
            number(value).is_some_and(|value| (value - expected).abs() < 1e-6)
        };
        values.len() == 3 && values.iter().zip(&expected).all(close)
    };
    (same("mean", mean) && same("std", std))
        .then_some(())
        .ok_or_else(|| unknown("a normalization other than ImageNet's,", arguments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use PickleValue::{Bool, Dict, Float, Int, List, None as Nothing, String as Text};

    fn fields<const N: usize>(entries: [(&str, PickleValue); N]) -> Fields {
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn text(value: &str) -> PickleValue {
        Text(value.to_owned())
    }

    fn transform<const N: usize>(name: &str, entries: [(&str, PickleValue); N]) -> PickleValue {
        let class = text(&format!("torchvision.transforms.v2.{name}"));
        Dict(fields([("class_path", class), ("init_args", Dict(fields(entries)))]))
    }

    fn resize(size: PickleValue) -> PickleValue {
        let rest = [("interpolation", text("bilinear")), ("antialias", Bool(true))];
        let [interpolation, antialias] = rest;
        transform("Resize", [("size", size), interpolation, antialias, ("max_size", Nothing)])
    }

    fn normalize() -> PickleValue {
        let list = |values: [f64; 3]| List(values.map(Float).to_vec());
        let statistics =
            [("mean", list([0.485, 0.456, 0.406])), ("std", list([0.229, 0.224, 0.225]))];
        transform("Normalize", statistics)
    }

    fn compose(parts: Vec<PickleValue>) -> PickleValue {
        transform("Compose", [("transforms", List(parts))])
    }

    #[test]
    fn transforms_become_preprocessing() {
        let exact = resize(List(vec![Int(64), Int(48)]));
        let config = preprocess(&compose(vec![exact, normalize()])).unwrap().unwrap();
        assert_eq!(config.resize, Resize::Exact { height: 64, width: 48 });
        assert_eq!(
            config,
            PreprocessConfig { resize: config.resize, ..PadimConfig::anomalib().preprocess }
        );

        let crop = transform("CenterCrop", [("size", List(vec![Int(224), Int(224)]))]);
        let inner = compose(vec![crop, normalize()]);
        let config = preprocess(&compose(vec![resize(Int(256)), inner])).unwrap().unwrap();
        assert_eq!((config.resize, config.crop), (Resize::ShortSide(256), Some(224)));

        assert_eq!(preprocess(&Nothing).unwrap(), None);
        assert_eq!(preprocess(&compose(vec![])).unwrap(), None);
    }

    #[test]
    fn transforms_that_cannot_be_expressed_are_refused() {
        let square = || resize(List(vec![Int(64), Int(64)]));
        let half = List(vec![Float(0.5); 3]);
        let other = transform("Normalize", [("mean", half.clone()), ("std", half)]);
        let grey = transform("Grayscale", [("num_output_channels", Int(3))]);
        let oblong = transform("CenterCrop", [("size", List(vec![Int(32), Int(48)]))]);
        let crop = || transform("CenterCrop", [("size", Int(32))]);
        let nearest = transform("Resize", [("size", Int(64)), ("interpolation", text("nearest"))]);
        let long = transform("Resize", [("size", Int(64)), ("max_size", Int(99))]);
        for (steps, word) in [
            (vec![square()], "not normalised"),
            (vec![normalize(), square()], "order"),
            (vec![square(), square(), normalize()], "order"),
            (vec![crop(), square(), normalize()], "order"),
            (vec![square(), grey, normalize()], "Grayscale"),
            (vec![square(), oblong, normalize()], "crop"),
            (vec![square(), other], "ImageNet"),
            (vec![nearest, normalize()], "nearest"),
            (vec![long, normalize()], "max_size"),
            (vec![resize(Int(0)), normalize()], "resize"),
            (vec![resize(List(vec![])), normalize()], "resize"),
            (vec![PickleValue::Unsupported("posix.system".into())], "posix.system"),
        ] {
            let error = preprocess(&compose(steps)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn settings_have_anomalibs_defaults() {
        let settings = Settings::parse(&Fields::new()).unwrap();
        assert_eq!(settings.sensitivities, [0.5, 0.5]);
        assert!(settings.normalizes && settings.decides && settings.matches);
        assert_eq!((settings.layers, settings.preprocess), (None, None));
    }

    #[test]
    fn networks_and_layers_are_checked() {
        let parse = |backbone: &str, layers: PickleValue| {
            let parameters = Dict(fields([("backbone", text(backbone)), ("layers", layers)]));
            Settings::parse(&fields([("hyper_parameters", parameters)]))
        };
        let two = || List(vec![text("layer2"), text("layer3")]);
        for known in ["resnet18", "resnet18.tv_in1k", "tv_resnet50", "wide_resnet50_2"] {
            assert_eq!(parse(known, two()).unwrap().layers, Some(vec![2, 3]), "{known}");
        }
        for unknown in ["resnetblur50", "resnet18d", "efficientnet_b5", "vit_small"] {
            let error = parse(unknown, two()).unwrap_err().to_string();
            assert!(error.contains(unknown) && error.contains("wide_resnet50_2"), "{error}");
        }
        assert!(parse("resnet18", List(vec![Int(1)])).is_err());
        assert!(parse("resnet18", List(vec![text("blocks.2")])).is_err());
    }
}
