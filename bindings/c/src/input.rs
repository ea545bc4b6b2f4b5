//! Images that come from C.

use std::ffi::c_char;
use std::mem::size_of;

use padim::ImageInput;
use padim::preprocess::{Frame, FrameFormat, FrameLayout};

use crate::memory::{Versioned, read_versioned, slice, text};
use crate::status::{Failure, Outcome};

/// A camera's frame: raw pixels in memory.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PadimFrame {
    /// Set this to sizeof(PadimFrame).
    pub struct_size: usize,
    /// The pixels, row by row.
    pub data: *const u8,
    /// The number of bytes at `data`.
    pub length: usize,
    /// The format by its name in GenICam: "Mono8", "RGB8", "BGR8", "RGBa8", "BGRa8", "Mono12", "Mono12p",
    /// "Mono16", "BayerRG8", ...
    pub format: *const c_char,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
    /// The number of bytes from the beginning of a row to that of the next; 0 for rows without a gap.
    pub stride: usize,
}

impl Default for PadimFrame {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            data: std::ptr::null(),
            length: 0,
            format: std::ptr::null(),
            height: 0,
            width: 0,
            stride: 0,
        }
    }
}

// SAFETY: `repr(C)`, numbers and pointers, the size first.
unsafe impl Versioned for PadimFrame {
    const FIRST: usize = size_of::<Self>();
}

/// The image of a frame. The pixels are copied.
pub(crate) unsafe fn of_frame(frame: *const PadimFrame, name: &str) -> Outcome<ImageInput> {
    // SAFETY: promises of the caller.
    let (frame, format, data) = unsafe {
        let frame = read_versioned(frame, "the frame")?;
        let format = text(frame.format, "the frame's format")?;
        (frame, format, slice(frame.data, frame.length, "the frame's data")?)
    };
    let format: FrameFormat = format.parse()?;
    let layout = FrameLayout::new(format, [frame.height, frame.width]).with_stride(frame.stride);
    Ok(ImageInput::frame(name, Frame::new(data, layout)?)?)
}

/// The image of an encoded file in memory. The bytes are copied. `name` may be null.
pub(crate) unsafe fn of_encoded(
    bytes: *const u8,
    length: usize,
    name: *const c_char,
) -> Outcome<ImageInput> {
    // SAFETY: promises of the caller.
    let (bytes, name) = unsafe {
        let name = if name.is_null() { "the given file" } else { text(name, "the name")? };
        (slice(bytes, length, "the encoded image")?, name)
    };
    if bytes.is_empty() {
        return Err(Failure::argument("the encoded image has no bytes"));
    }
    Ok(ImageInput::encoded(name, bytes))
}

/// The image of a file.
pub(crate) unsafe fn of_file(path: *const c_char) -> Outcome<ImageInput> {
    // SAFETY: promise of the caller.
    Ok(unsafe { text(path, "the path") }?.into())
}
