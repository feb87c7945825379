//! Setters of settings.

/// Makes a setter for each field; `const` makes them usable in constants.
macro_rules! setters {
    ($($field:ident: $type:ty,)*) => {
        $(
            #[doc = concat!("The same settings with this `", stringify!($field), "`.")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )*
    };
    (const $($field:ident: $type:ty,)*) => {
        $(
            #[doc = concat!("The same settings with this `", stringify!($field), "`.")]
            #[must_use]
            pub const fn $field(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )*
    };
}

pub(crate) use setters;
