//! What is done to images so that parts lie alike, before anything else.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use image::DynamicImage;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::preprocess::{Alignment, principal_axis};

/// Brings images of parts that lie in different ways to one pose, before anything else is done to them,
/// for the fit and for predictions.
///
/// A registration of your own is code, so a detector's file holds only its name: a detector that was
/// loaded refuses images until it is given it again
/// ([`Detector::with_registration`](crate::Detector::with_registration)).
///
/// ```
/// # use padim::{Detector, Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
/// # use padim::detector::Registration;
/// # use padim::preprocess::{PreprocessConfig, Resize};
/// # let device = burn::tensor::Device::flex();
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("part.padim");
/// # let small = PreprocessConfig { resize: Resize::square(32), crop: None, ..Default::default() };
/// # let config = PadimConfig { preprocess: small, ..Default::default() };
/// # let images = || (0..3).map(|i| image::RgbImage::from_pixel(40, 40, image::Rgb([i * 9; 3])));
/// // Some images come upside down.
/// let upright = Registration::new("upright", |image| {
///     let dark_below = image.to_luma8().get_pixel(20, 39).0 < image.to_luma8().get_pixel(20, 0).0;
///     Ok(if dark_below { image.rotate180() } else { image.clone() })
/// });
/// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?;
/// let detector = padim.with_registration(upright.clone()).fit(images())?;
/// detector.save(&path)?;
///
/// let loaded = Detector::load(&path, &device)?;
/// let error = loaded.predict_batch(images()).unwrap_err();
/// assert!(matches!(error, Error::RegistrationMissing { .. }), "{error}");
/// let loaded = loaded.with_registration(upright)?;
/// assert_eq!(loaded.predict_batch(images())?, detector.predict_batch(images())?);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Registration(Kind);

type Work<T> = Arc<dyn Fn(&DynamicImage) -> Result<T> + Send + Sync>;

#[derive(Clone)]
enum Kind {
    PrincipalAxis {
        degrees: f64,
    },
    Aligning {
        name: String,
        align: Work<Alignment>,
    },
    Replacing {
        name: String,
        register: Work<DynamicImage>,
    },
    /// A detector's file knew only its name.
    Missing {
        name: String,
    },
}

/// What a file says of a registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoredRegistration {
    PrincipalAxis { degrees: f64 },
    Named(String),
}

impl Registration {
    /// A registration of your own, known by a name. It makes the registered image, of any size.
    ///
    /// Anomaly maps are those of the registered image, also
    /// [`map_in_original`](crate::Prediction::map_in_original): how to bring them back, only you know. If
    /// it turns and shifts only, [`aligning`](Self::aligning) brings them back by itself.
    pub fn new(
        name: impl Into<String>,
        register: impl Fn(&DynamicImage) -> Result<DynamicImage> + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Replacing { name: name.into(), register: Arc::new(register) })
    }

    /// A registration of your own that turns and shifts, known by a name. It tells how; the image is then
    /// moved, and maps in the original image moved back.
    pub fn aligning(
        name: impl Into<String>,
        align: impl Fn(&DynamicImage) -> Result<Alignment> + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Aligning { name: name.into(), align: Arc::new(align) })
    }

    /// For long parts on a plain background, as screws and pens are: the part is brought to the middle of
    /// the image, and its long axis turned so that its heavier end points in the direction `degrees`,
    /// counter-clockwise from the right (90 for upright, 45 for along the diagonal, where there is most
    /// room).
    ///
    /// The part is the largest connected region that differs from the background (Otsu 1979), which is what
    /// most of the image's border looks like; its axis is that of its second moments, the heavier end is
    /// told by the third. A part that is as wide as it is long, or as heavy at both ends, has no such
    /// direction. An image that shows no part is an error. This one is saved with the detector.
    pub fn principal_axis(degrees: f64) -> Self {
        Self(Kind::PrincipalAxis { degrees })
    }

    /// Its name.
    pub fn name(&self) -> Cow<'_, str> {
        match &self.0 {
            Kind::PrincipalAxis { degrees } => format!("principal axis at {degrees}").into(),
            Kind::Aligning { name, .. } | Kind::Replacing { name, .. } | Kind::Missing { name } => {
                name.into()
            }
        }
    }

    /// Whether only its name is known, from a detector's file.
    pub fn is_missing(&self) -> bool {
        matches!(self.0, Kind::Missing { .. })
    }

    /// The registered image, and how it was moved if that is known.
    ///
    /// # Errors
    ///
    /// Those of the registration, and [`Error::RegistrationMissing`] if only its name is known.
    pub fn apply(&self, image: &DynamicImage) -> Result<(DynamicImage, Option<Alignment>)> {
        let alignment = match &self.0 {
            Kind::PrincipalAxis { degrees } => principal_axis(image, *degrees)?,
            Kind::Aligning { align, .. } => align(image)?,
            Kind::Replacing { register, .. } => return Ok((register(image)?, None)),
            Kind::Missing { name } => {
                return Err(Error::RegistrationMissing { name: name.clone() });
            }
        };
        Ok((alignment.apply(image)?, Some(alignment)))
    }

    /// Fails if only the name is known.
    pub(crate) fn require(&self) -> Result<()> {
        match &self.0 {
            Kind::Missing { name } => Err(Error::RegistrationMissing { name: name.clone() }),
            _ => Ok(()),
        }
    }

    pub(crate) fn stored(&self) -> StoredRegistration {
        match self.0 {
            Kind::PrincipalAxis { degrees } => StoredRegistration::PrincipalAxis { degrees },
            _ => StoredRegistration::Named(self.name().into_owned()),
        }
    }

    pub(crate) fn from_stored(stored: StoredRegistration) -> Self {
        Self(match stored {
            StoredRegistration::PrincipalAxis { degrees } => Kind::PrincipalAxis { degrees },
            StoredRegistration::Named(name) => Kind::Missing { name },
        })
    }

    /// `new`, if it is the one that was fitted with.
    pub(crate) fn replaced(old: Option<&Self>, new: Self) -> Result<Self> {
        match old {
            Some(old) if old.stored() == new.stored() => Ok(new),
            _ => {
                let fitted = old.map_or("none".into(), |old| format!("{:?}", old.name()));
                let reason = format!("{:?} is not what was fitted with: {fitted}", new.name());
                Err(Error::config("registration", reason))
            }
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.name()).finish()
    }
}
