//! Setters of settings.

/// For the members of this workspace; not part of the library's interface.
///
/// Makes a setter for each field; `const` makes them usable in constants.
#[doc(hidden)]
#[macro_export]
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
