//! The caller's memory.
//!
//! The functions here trust what C cannot show: that a pointer which is not null points to as many values as the
//! caller says, and that nothing else writes there during the call.

use std::ffi::{CStr, c_char};
use std::mem::size_of;

use crate::status::{Failure, Outcome};

fn null(what: &str) -> Failure {
    Failure::argument(format!("{what} is null"))
}

/// Values that the caller owns. A null pointer is fine for none.
pub unsafe fn slice<'a, T>(pointer: *const T, length: usize, what: &str) -> Outcome<&'a [T]> {
    if length == 0 {
        return Ok(&[]);
    }
    check(pointer, length, what)?;
    // SAFETY: not null, aligned and not longer than memory can be; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// As [`slice`], for writing.
pub unsafe fn slice_mut<'a, T>(pointer: *mut T, length: usize, what: &str) -> Outcome<&'a mut [T]> {
    if length == 0 {
        return Ok(&mut []);
    }
    check(pointer, length, what)?;
    // SAFETY: as in `slice`.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, length) })
}

fn check<T>(pointer: *const T, length: usize, what: &str) -> Outcome<()> {
    if pointer.is_null() {
        return Err(null(what));
    }
    if !pointer.is_aligned() {
        return Err(Failure::argument(format!("{what} is not aligned")));
    }
    if length > isize::MAX as usize / size_of::<T>() {
        return Err(Failure::argument(format!("{what} cannot have {length} values")));
    }
    Ok(())
}

/// A text that ends with 0.
pub unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Outcome<&'a str> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: not null; that it ends is the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Failure::argument(format!("{what} is not UTF-8")))
}

/// Writes a result.
pub unsafe fn write<T>(pointer: *mut T, value: T, what: &str) -> Outcome<()> {
    check(pointer, 1, what)?;
    // SAFETY: not null and aligned; that it may be written is the caller's promise.
    unsafe { pointer.write(value) };
    Ok(())
}

/// A struct that begins with its size, so that it can grow: fields that an old program does not have are not
/// touched.
///
/// # Safety
///
/// `#[repr(C)]`, begins with a `usize` for the size, and any bytes are a valid value.
pub unsafe trait Versioned: Copy + Default {
    /// The size of the first version.
    const FIRST: usize;
}

unsafe fn size<T: Versioned>(pointer: *const T, what: &str) -> Outcome<usize> {
    check(pointer, 1, what)?;
    // SAFETY: begins with a `usize`.
    let size = unsafe { *pointer.cast::<usize>() };
    if size < T::FIRST {
        return Err(Failure::argument(format!(
            "the struct_size of {what} is {size}, expected {}: set it to sizeof of the struct",
            size_of::<T>()
        )));
    }
    Ok(size.min(size_of::<T>()))
}

/// Reads a struct of the caller's version. Missing fields have their defaults.
pub unsafe fn read_versioned<T: Versioned>(pointer: *const T, what: &str) -> Outcome<T> {
    let mut value = T::default();
    // SAFETY: the caller's struct has `size` bytes; any bytes are a valid `T`.
    unsafe {
        let size = size(pointer, what)?;
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut value).cast::<u8>(), size);
    }
    Ok(value)
}

/// Writes the fields that the caller's version has, without the size.
pub unsafe fn write_versioned<T: Versioned>(pointer: *mut T, value: &T, what: &str) -> Outcome<()> {
    let head = size_of::<usize>();
    // SAFETY: as above; both have at least the size's field.
    unsafe {
        let size = size(pointer, what)?;
        let source = std::ptr::from_ref(value).cast::<u8>().add(head);
        std::ptr::copy_nonoverlapping(source, pointer.cast::<u8>().add(head), size - head);
    }
    Ok(())
}
