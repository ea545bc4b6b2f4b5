//! Code that settings repeat: names of variants, and methods that set fields.

/// Implements `Display` and `FromStr` of an enum by a list of the names of its values, which should be
/// those of its `serde` form.
macro_rules! named {
    ($type:ty, $field:literal, [$(($name:literal, $($value:tt)+)),* $(,)?]) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self {
                    $($($value)+ => $name),*
                })
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                match text {
                    $($name => Ok($($value)+),)*
                    _ => {
                        let names = [$($name),*].join(", ");
                        let reason = format!("expected one of {names}, got {text:?}");
                        Err($crate::error::Error::config($field, reason))
                    }
                }
            }
        }
    };
}

/// Implements a method for each field that returns the settings with another value.
macro_rules! builders {
    ($type:ty { $($method:ident: $field:ident, $value:ty;)* }) => {
        impl $type {
            $(
                #[doc = concat!("The same with this [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $method(mut self, value: $value) -> Self {
                    self.$field = value;
                    self
                }
            )*
        }
    };
}

pub(crate) use {builders, named};
