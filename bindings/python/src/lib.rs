//! The Python package of padim: `padim._padim`, over which `python/padim` puts what people use.

mod detector;
mod errors;
mod fit;
mod images;

use pyo3::prelude::*;

#[pymodule]
fn _padim(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<detector::Detector>()?;
    module.add_class::<detector::Prediction>()?;
    module.add_class::<detector::Defect>()?;
    module.add_class::<fit::Fitter>()?;
    module.add_class::<fit::PartialFit>()?;
    Ok(())
}
