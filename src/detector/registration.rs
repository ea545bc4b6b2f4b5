//! Registration: aligns images before all other steps.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use image::DynamicImage;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::preprocess::{Alignment, Alpha, principal_axis};

/// Aligns images of parts in different poses to one pose, before all other steps of fits and
/// predictions.
///
/// It gets images as they are decoded: values of more than 8 bits are not scaled, and alpha is kept.
///
/// A custom registration is code, so a detector's file holds only its name. After loading, the detector
/// rejects images until it gets the registration again
/// ([`Detector::with_registration`](crate::Detector::with_registration)).
///
/// ```
/// # use padim::{Detector, Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
/// # use padim::detector::Registration;
/// # use padim::preprocess::{PreprocessConfig, Resize};
/// # let device = burn::tensor::Device::flex();
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("part.padim");
/// # let small = PreprocessConfig::default().with_resize(Resize::square(32)).with_crop(None);
/// # let config = PadimConfig::default().with_preprocess(small);
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
    /// A custom registration after loading: only its name is known.
    Missing {
        name: String,
    },
}

/// A registration in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoredRegistration {
    PrincipalAxis { degrees: f64 },
    Named(String),
}

impl Registration {
    /// A custom registration with a name. `register` returns the registered image, of any size.
    ///
    /// Anomaly maps then refer to the registered image, also
    /// [`map_in_original`](crate::Prediction::map_in_original), because the motion is unknown. If the
    /// registration only rotates and shifts, use [`aligning`](Self::aligning): it transforms maps back.
    pub fn new(
        name: impl Into<String>,
        register: impl Fn(&DynamicImage) -> Result<DynamicImage> + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Replacing { name: name.into(), register: Arc::new(register) })
    }

    /// A custom registration with a name that only rotates and shifts. `align` returns the motion; the
    /// crate moves the image, and moves maps back for the original image.
    pub fn aligning(
        name: impl Into<String>,
        align: impl Fn(&DynamicImage) -> Result<Alignment> + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Aligning { name: name.into(), align: Arc::new(align) })
    }

    /// For long parts on a plain background, such as screws and pens. Moves the part to the center of
    /// the image and rotates it, so that its heavier end points in the direction `degrees`,
    /// counterclockwise from the right (90 for upright; 45 for the diagonal, which has most room).
    ///
    /// The part is the largest connected region that differs from the background (Otsu 1979); the
    /// background is the most common color of the image's border. The second moments of the part give
    /// its axis, the third moment its heavier end. The direction is undefined for a part that is as
    /// wide as long, or symmetric between its ends. An image without a part gives an error. This
    /// registration is saved with the detector.
    pub fn principal_axis(degrees: f64) -> Self {
        Self(Kind::PrincipalAxis { degrees })
    }

    /// The name.
    pub fn name(&self) -> Cow<'_, str> {
        match &self.0 {
            Kind::PrincipalAxis { degrees } => format!("principal axis at {degrees}").into(),
            Kind::Aligning { name, .. } | Kind::Replacing { name, .. } | Kind::Missing { name } => {
                name.into()
            }
        }
    }

    /// Whether only the name is known, after loading a detector's file.
    pub fn is_missing(&self) -> bool {
        matches!(self.0, Kind::Missing { .. })
    }

    /// Returns the registered image, and its motion if known.
    ///
    /// # Errors
    ///
    /// The errors of the registration, and [`Error::RegistrationMissing`] if only its name is known.
    pub fn apply(&self, image: &DynamicImage) -> Result<(DynamicImage, Option<Alignment>)> {
        self.apply_with(image, Alpha::default())
    }

    /// As [`apply`](Self::apply); `alpha`: how the crate's own registrations see transparent pixels.
    pub(crate) fn apply_with(
        &self,
        image: &DynamicImage,
        alpha: Alpha,
    ) -> Result<(DynamicImage, Option<Alignment>)> {
        let alignment = match &self.0 {
            Kind::PrincipalAxis { degrees } => principal_axis(image, *degrees, alpha)?,
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

    /// Returns `new` if it is the registration of the fit.
    pub(crate) fn replaced(old: Option<&Self>, new: Self) -> Result<Self> {
        match old {
            Some(old) if old.stored() == new.stored() => Ok(new),
            _ => {
                let fitted = old.map_or("none".into(), |old| format!("{:?}", old.name()));
                let reason = format!("the fit had {fitted}, got {:?}", new.name());
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
