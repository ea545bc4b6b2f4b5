//! The sources of a network's parameters: a checkpoint, a seed, or a saved detector.
//!
//! At inference, batch norm is a fixed affine map, so it is folded into the convolution before it.
//! Every source therefore gives a weight and a bias per convolution.

use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::Device;

use super::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::fingerprint::FingerprintHasher;
use crate::host::{f32_to_bytes, is_host, pixels_to_device, to_device, to_host};
use crate::random::Random;

/// A convolution with its batch norm folded in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FoldedConvolution {
    /// The name of the convolution in the network.
    pub name: String,
    /// `[channels_out, channels_in per group, kernel_height, kernel_width]`
    pub shape: [usize; 4],
    /// Row-major values, in the shape `shape`.
    pub weight: Vec<f32>,
    /// `[channels_out]`
    pub bias: Vec<f32>,
}

impl FoldedConvolution {
    /// Hashes everything that affects the features.
    pub fn hash(&self, hasher: &mut FingerprintHasher) {
        let shape: Vec<u8> = self.shape.iter().flat_map(|&n| (n as u64).to_le_bytes()).collect();
        hasher.add(self.name.as_bytes());
        hasher.add(&shape);
        hasher.add(&f32_to_bytes(&self.weight));
        hasher.add(&f32_to_bytes(&self.bias));
    }
}

/// The description of a convolution in its network.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The name of the convolution.
    pub name: String,
    /// The batch norm; without one, the convolution has a bias.
    pub norm: Option<Norm>,
    /// `[channels_out, channels_in per group, kernel_height, kernel_width]`
    pub shape: [usize; 4],
    /// The stride along both axes.
    pub stride: usize,
    /// The number of groups of channels.
    pub groups: usize,
    /// A factor for untrained weights.
    pub gain: f64,
}

/// A batch norm.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub name: String,
    pub epsilon: f64,
}

/// The default epsilon of torch's batch norm.
const NORM_EPSILON: f64 = 1e-5;

impl Site {
    pub fn new(name: &str, norm: &str, shape: [usize; 4], stride: usize) -> Self {
        let norm = Some(Norm { name: norm.to_owned(), epsilon: NORM_EPSILON });
        Self { name: name.to_owned(), norm, shape, stride, groups: 1, gain: 1.0 }
    }

    /// The names and shapes of the convolution's tensors in a checkpoint.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut tensors = vec![(format!("{}.weight", self.name), self.shape.to_vec())];
        let (of, parts) = match &self.norm {
            Some(norm) => {
                (&norm.name, ["weight", "bias", "running_mean", "running_var"].as_slice())
            }
            None => (&self.name, ["bias"].as_slice()),
        };
        tensors.extend(parts.iter().map(|part| (format!("{of}.{part}"), vec![self.shape[0]])));
        tensors
    }

    /// Builds the convolution on a device. Its padding keeps the size at stride 1.
    pub fn module(&self, parameters: FoldedConvolution, device: &Device) -> Conv2d {
        let [channels_out, channels_in, height, width] = self.shape;
        let weight = if is_host(device) {
            to_device(parameters.weight, self.shape, device)
        } else {
            // GPUs need channels last, and would convert the weights at every convolution.
            let shape = [channels_out, height, width, channels_in];
            let (places, each) = (height * width, channels_in * height * width);
            let turned = (0..channels_out * each).map(|i| {
                let (filter, place, channel) = (i / each, i % each / channels_in, i % channels_in);
                parameters.weight[filter * each + channel * places + place]
            });
            pixels_to_device(turned.collect(), shape, device)
        };
        let bias = to_device(parameters.bias, [channels_out], device);
        let (y, x) = (height / 2, width / 2);
        Conv2d {
            weight: Param::from_tensor(weight),
            bias: Some(Param::from_tensor(bias)),
            stride: [self.stride; 2],
            kernel_size: [height, width],
            dilation: [1, 1],
            groups: self.groups,
            padding: PaddingConfig2d::Explicit(y, x, y, x),
        }
    }

    /// Reads the parameters back from a built convolution.
    pub fn read_back(&self, module: &Conv2d) -> Result<FoldedConvolution> {
        let bias = match &module.bias {
            Some(bias) => to_host(bias.val())?,
            None => vec![0.0; self.shape[0]],
        };
        let weight = to_host(module.weight.val())?;
        Ok(FoldedConvolution { name: self.name.clone(), shape: self.shape, weight, bias })
    }
}

/// Gives the parameters of a network, one convolution after the other.
pub(crate) trait ParameterSource {
    /// The parameters of one convolution.
    fn convolution(&mut self, site: &Site) -> Result<FoldedConvolution>;
}

impl ParameterSource for Checkpoint {
    fn convolution(&mut self, site: &Site) -> Result<FoldedConvolution> {
        let channels = site.shape[0];
        let mut weight = self.take(&format!("{}.weight", site.name), &site.shape)?;
        let Some(Norm { name, epsilon }) = &site.norm else {
            let bias = self.take(&format!("{}.bias", site.name), &[channels])?;
            let name = site.name.clone();
            return Ok(FoldedConvolution { name, shape: site.shape, weight, bias });
        };
        let mut norm = |part: &str| self.take(&format!("{name}.{part}"), &[channels]);
        let (gamma, beta) = (norm("weight")?, norm("bias")?);
        let (mean, variance) = (norm("running_mean")?, norm("running_var")?);
        self.discard(&format!("{name}.num_batches_tracked"));

        let scale = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
        for (c, filter) in weight.chunks_exact_mut(site.shape[1..].iter().product()).enumerate() {
            filter.iter_mut().for_each(|w| *w = (f64::from(*w) * scale(c)) as f32);
        }
        let bias: Vec<f32> = (0..channels)
            .map(|c| (f64::from(beta[c]) - f64::from(mean[c]) * scale(c)) as f32)
            .collect();
        if !weight.iter().chain(&bias).all(|v| v.is_finite()) {
            let what = format!("the convolution `{}` with its batch norm folded in", site.name);
            return Err(Error::NotFinite { what });
        }
        Ok(FoldedConvolution { name: site.name.clone(), shape: site.shape, weight, bias })
    }
}

/// Random parameters. The same seed gives the same parameters on every machine.
///
/// Weights are uniform with the variance of He et al. (2015), times `Site::gain`, so that features
/// neither vanish nor explode without trained batch norms.
#[derive(Debug)]
pub(crate) struct SeededParameters(Random);

impl SeededParameters {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }
}

impl ParameterSource for SeededParameters {
    fn convolution(&mut self, site: &Site) -> Result<FoldedConvolution> {
        let fan_in = site.shape[1..].iter().product::<usize>();
        let limit = (6.0 / fan_in as f64).sqrt() * site.gain;
        let weight = (0..site.shape[0] * fan_in)
            .map(|_| ((2.0 * self.0.uniform() - 1.0) * limit) as f32)
            .collect();
        let bias = vec![0.0; site.shape[0]];
        Ok(FoldedConvolution { name: site.name.clone(), shape: site.shape, weight, bias })
    }
}

/// The parameters of a saved detector, in the order of `Network::sites`.
#[derive(Debug)]
pub(crate) struct FoldedParameters {
    pub convolutions: std::vec::IntoIter<FoldedConvolution>,
}

impl ParameterSource for FoldedParameters {
    fn convolution(&mut self, site: &Site) -> Result<FoldedConvolution> {
        self.convolutions
            .next()
            .filter(|found| found.name == site.name && found.shape == site.shape)
            .ok_or_else(|| Error::MissingTensor {
                name: site.name.clone(),
                expected: site.shape.to_vec(),
            })
    }
}
