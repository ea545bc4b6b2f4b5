//! Output to the terminal. A pipe that is closed (`| head -1`) does not end a program, because its files
//! are wanted all the same.

use std::fmt::{Arguments, Display};
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Outcome;

/// As `println!`, but a closed pipe is no error.
macro_rules! say {
    () => { $crate::common::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::common::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `eprintln!`, but a closed pipe is no error.
macro_rules! tell {
    ($($text:tt)*) => { $crate::common::print_error(format_args!($($text)*)) };
}

pub(crate) use {say, tell};

/// Whether stdout takes no more text.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// Whether text was lost otherwise than by a closed pipe.
static LOST: AtomicBool = AtomicBool::new(false);

/// Writes to stdout as it is.
pub fn print(text: Arguments<'_>) {
    if CLOSED.load(Ordering::Relaxed) {
        return;
    }
    let mut out = std::io::stdout().lock();
    let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) else { return };
    CLOSED.store(true, Ordering::Relaxed);
    if error.kind() != ErrorKind::BrokenPipe {
        LOST.store(true, Ordering::Relaxed);
        tell!("cannot write to the output: {error}");
    }
}

/// Writes a line to stderr. If that is impossible, nobody can be told.
pub fn print_error(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns the value; for an error, prints it to stderr and exits with code 1.
pub fn report<T>(outcome: Outcome<T>) -> T {
    let value = outcome.unwrap_or_else(|error| {
        tell!("error: {}", advice(&error));
        std::process::exit(1)
    });
    if LOST.load(Ordering::Relaxed) {
        std::process::exit(1);
    }
    value
}

/// What the library advises, and the option of the examples for it.
const OPTIONS: [(&str, &str); 6] = [
    ("with_decode_limits", "--max-pixels N"),
    ("with_page", "--page N"),
    ("with_orientation", "--orientation apply|ignore"),
    ("with_levels", "--levels bits:N|LOW..HIGH"),
    ("Weights::fetch", "--weights FILE"),
    ("Weights::torchvision", "--weights torchvision"),
];

/// The text of an error. Where it names a method of the library, the option is named, too.
pub fn advice(error: &impl Display) -> String {
    let mut text = error.to_string();
    for (method, option) in OPTIONS {
        if text.contains(method) && !text.contains(option) {
            text += &format!(" (here: {option})");
        }
    }
    text
}
