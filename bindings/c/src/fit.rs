//! Fits and calibrations: images come one by one, while threads of the library work.

use std::ffi::c_char;
use std::mem::size_of;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use padim::backbone::ResNet;
use padim::burn::tensor::Device;
use padim::{
    CalibrationConfig, Detector, Error, ImageInput, Padim, PadimConfig, ResNet18, Weights,
    WideResNet50,
};

use crate::detector::{DETECTORS, Held, Kind, PadimDetector, put};
use crate::handles::Handles;
use crate::input::{PadimFrame, of_encoded, of_file, of_frame};
use crate::memory::{Versioned, read_versioned, text, write};
use crate::status::{Failure, Outcome, PadimStatus, guard};

/// A fit that waits for images. End it by padim_fit_finish or padim_fit_free.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PadimFit {
    /// Not for use by programs. 0 is no fit.
    pub id: u64,
}

/// A calibration that waits for images. End it by padim_calibration_finish or padim_calibration_free.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PadimCalibration {
    /// Not for use by programs. 0 is no calibration.
    pub id: u64,
}

/// The settings of a fit. Null pointers mean defaults.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PadimFitOptions {
    /// Set this to sizeof(PadimFitOptions).
    pub struct_size: usize,
    /// "resnet18" (default) or "wide_resnet50".
    pub backbone: *const c_char,
    /// A file with the network's weights (.safetensors or .pth of torchvision). Default: those inside this library,
    /// which only "resnet18" has.
    pub weights: *const c_char,
    /// The settings as JSON, with the field names of `PadimConfig`; fields that are left out have their defaults.
    /// For example: {"batch_size": 8, "preprocess": {"resize": {"exact": {"height": 256, "width": 320}}}}
    pub config_json: *const c_char,
}

impl Default for PadimFitOptions {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            backbone: std::ptr::null(),
            weights: std::ptr::null(),
            config_json: std::ptr::null(),
        }
    }
}

// SAFETY: `repr(C)`, numbers and pointers, the size first.
unsafe impl Versioned for PadimFitOptions {
    const FIRST: usize = size_of::<Self>();
}

/// Work on images that come from other threads.
struct Feed<R> {
    images: Mutex<Option<SyncSender<ImageInput>>>,
    worker: Mutex<Option<JoinHandle<padim::Result<R>>>>,
    cancelled: Arc<AtomicBool>,
}

/// Images that may wait. More would only take memory.
const WAITING: usize = 16;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Send + 'static> Feed<R> {
    fn start(
        work: impl FnOnce(Receiver<ImageInput>, &AtomicBool) -> padim::Result<R> + Send + 'static,
    ) -> Outcome<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancelled);
        let worker = Builder::new().name("padim".into()).spawn(move || work(receiver, &flag));
        let worker = worker.map_err(|error| Error::other(format!("no thread starts: {error}")))?;
        Ok(Self { images: Mutex::new(Some(sender)), worker: Mutex::new(Some(worker)), cancelled })
    }

    /// Hands over an image. Waits while enough others wait. Fails with the error of an earlier image, if the work
    /// has ended by it.
    fn add(&self, image: ImageInput) -> Outcome<()> {
        let images = lock(&self.images).clone();
        let open = images.is_some_and(|images| images.send(image).is_ok());
        if open { Ok(()) } else { self.finish().map(drop) }
    }

    /// Ends the images, and waits for the result.
    fn finish(&self) -> Outcome<R> {
        lock(&self.images).take();
        let Some(worker) = lock(&self.worker).take() else {
            return Err(Failure::argument("it has ended; its error was that of an earlier call"));
        };
        match worker.join() {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::other("a thread of padim has panicked").into()),
        }
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        let _ = self.finish();
    }
}

fn go_on(cancelled: &AtomicBool) -> ControlFlow<()> {
    match cancelled.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

static FITS: Handles<Feed<Detector>> = Handles::new("fit");

/// A calibration and the handle of its detector.
struct Calibration {
    feed: Feed<Detector>,
    held: Arc<Held>,
}

static CALIBRATIONS: Handles<Calibration> = Handles::new("calibration");

unsafe fn optional<'a>(pointer: *const c_char, what: &str) -> Outcome<Option<&'a str>> {
    // SAFETY: promise of the caller.
    if pointer.is_null() { Ok(None) } else { unsafe { text(pointer, what) }.map(Some) }
}

unsafe fn padim(options: *const PadimFitOptions) -> Outcome<Padim> {
    // SAFETY: promises of the caller.
    let [backbone, weights, config] = unsafe {
        let options = match options.is_null() {
            true => PadimFitOptions::default(),
            false => read_versioned(options, "the options")?,
        };
        [
            optional(options.backbone, "the backbone")?,
            optional(options.weights, "the path of the weights")?,
            optional(options.config_json, "the settings")?,
        ]
    };
    let config: PadimConfig = match config {
        Some(json) => serde_json::from_str(json)
            .map_err(|error| Failure::argument(format!("the settings are not usable: {error}")))?,
        None => PadimConfig::default(),
    };
    let device = Device::flex();
    let weights = weights.map_or(Weights::Bundled, |path| Weights::File(PathBuf::from(path)));
    let network: ResNet = match backbone.unwrap_or("resnet18") {
        "resnet18" => ResNet18::load(weights, &device)?,
        "wide_resnet50" => WideResNet50::load(weights, &device)?,
        other => {
            return Err(Failure::argument(format!(
                "expected the backbone resnet18 or wide_resnet50, got {other:?}"
            )));
        }
    };
    Ok(Padim::new(config, network)?)
}

/// Begins a fit on good images. `options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_fit_new(
    options: *const PadimFitOptions,
    fit: *mut PadimFit,
) -> PadimStatus {
    guard(|| {
        if fit.is_null() {
            return Err(Failure::argument("the place for the fit is null"));
        }
        // SAFETY: promises of the caller.
        let padim = unsafe { padim(options) }?;
        let feed =
            Feed::start(move |images, cancelled| padim.fit_with(images, |_| go_on(cancelled)))?;
        // SAFETY: promise of the caller.
        unsafe { write(fit, PadimFit { id: FITS.insert(feed) }, "the place for the fit") }
    })
}

/// Adds a good image. The pixels are copied. The call may wait for images before. An error of an earlier image is
/// told by a later call; then the fit has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_fit_add_frame(
    fit: PadimFit,
    frame: *const PadimFrame,
) -> PadimStatus {
    // SAFETY: promises of the caller.
    guard(|| FITS.get(fit.id)?.add(unsafe { of_frame(frame, "a frame of the fit") }?))
}

/// As padim_fit_add_frame, with the bytes of an image file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_fit_add_encoded(
    fit: PadimFit,
    bytes: *const u8,
    length: usize,
    name: *const c_char,
) -> PadimStatus {
    // SAFETY: promises of the caller.
    guard(|| FITS.get(fit.id)?.add(unsafe { of_encoded(bytes, length, name) }?))
}

/// As padim_fit_add_frame, with an image file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_fit_add_file(fit: PadimFit, path: *const c_char) -> PadimStatus {
    // SAFETY: promises of the caller.
    guard(|| FITS.get(fit.id)?.add(unsafe { of_file(path) }?))
}

/// Ends a fit, and gives its detector. The fit is freed, also if the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_fit_finish(
    fit: PadimFit,
    detector: *mut PadimDetector,
) -> PadimStatus {
    guard(|| {
        let feed = FITS.remove(fit.id)?;
        put(Kind::Whole(feed.finish()?), detector)
    })
}

/// Gives up a fit.
#[unsafe(no_mangle)]
pub extern "C" fn padim_fit_free(fit: PadimFit) -> PadimStatus {
    guard(|| FITS.remove(fit.id).map(|feed| feed.cancel()))
}

/// Begins a calibration of a detector by good images that were not in its fit: at most this share of good images,
/// and of their pixels, will be called defective. A share of 0.05 needs 19 images, one of 0.01 needs 99. For 0, the
/// default is taken: 0.05 of the images, 0.001 of the pixels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_calibration_new(
    detector: PadimDetector,
    image_false_alarm_rate: f64,
    pixel_false_alarm_rate: f64,
    calibration: *mut PadimCalibration,
) -> PadimStatus {
    guard(|| {
        if calibration.is_null() {
            return Err(Failure::argument("the place for the calibration is null"));
        }
        let held = DETECTORS.get(detector.id)?;
        let Kind::Whole(mut detector) = (*crate::detector::get(detector)?).clone() else {
            return Err(Error::other("a detector for tiles cannot be calibrated through C").into());
        };
        let mut config = CalibrationConfig::default();
        if image_false_alarm_rate != 0.0 {
            config = config.with_image_false_alarm_rate(image_false_alarm_rate);
        }
        if pixel_false_alarm_rate != 0.0 {
            config = config.with_pixel_false_alarm_rate(pixel_false_alarm_rate);
        }
        config.validate()?;
        let feed = Feed::start(move |images, cancelled| {
            detector.calibrate_with(images, &config, |_| go_on(cancelled))?;
            Ok(detector)
        })?;
        let id = CALIBRATIONS.insert(Calibration { feed, held });
        // SAFETY: promise of the caller.
        unsafe { write(calibration, PadimCalibration { id }, "the place for the calibration") }
    })
}

/// Adds a good image, as padim_fit_add_frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_calibration_add_frame(
    calibration: PadimCalibration,
    frame: *const PadimFrame,
) -> PadimStatus {
    guard(|| {
        let calibration = CALIBRATIONS.get(calibration.id)?;
        // SAFETY: promises of the caller.
        calibration.feed.add(unsafe { of_frame(frame, "a frame of the calibration") }?)
    })
}

/// Adds a good image, as padim_fit_add_encoded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_calibration_add_encoded(
    calibration: PadimCalibration,
    bytes: *const u8,
    length: usize,
    name: *const c_char,
) -> PadimStatus {
    guard(|| {
        let calibration = CALIBRATIONS.get(calibration.id)?;
        // SAFETY: promises of the caller.
        calibration.feed.add(unsafe { of_encoded(bytes, length, name) }?)
    })
}

/// Adds a good image, as padim_fit_add_file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_calibration_add_file(
    calibration: PadimCalibration,
    path: *const c_char,
) -> PadimStatus {
    // SAFETY: promises of the caller.
    guard(|| CALIBRATIONS.get(calibration.id)?.feed.add(unsafe { of_file(path) }?))
}

/// Ends a calibration: its detector has the thresholds from now on. The calibration is freed, also if the call
/// fails; then the detector stays as it was.
#[unsafe(no_mangle)]
pub extern "C" fn padim_calibration_finish(calibration: PadimCalibration) -> PadimStatus {
    guard(|| {
        let calibration = CALIBRATIONS.remove(calibration.id)?;
        let detector = Arc::new(Kind::Whole(calibration.feed.finish()?));
        *calibration.held.write().unwrap_or_else(PoisonError::into_inner) = detector;
        Ok(())
    })
}

/// Gives up a calibration. Its detector stays as it was.
#[unsafe(no_mangle)]
pub extern "C" fn padim_calibration_free(calibration: PadimCalibration) -> PadimStatus {
    guard(|| CALIBRATIONS.remove(calibration.id).map(|calibration| calibration.feed.cancel()))
}
