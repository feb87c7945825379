//! Typed arrays of JavaScript in and out. Each crosses with one copy, because a module sees its own memory alone.

use js_sys::{Array, Float32Array, Int16Array, Uint8Array, Uint32Array};
use wasm_bindgen::{JsCast, JsValue};

use crate::error::Failure;
use crate::number::exact;

/// Whole numbers in JavaScript: indices of frames and places of bytes.
pub(crate) fn number(value: u64) -> Result<f64, Failure> {
    exact(value).ok_or(Failure::Beyond(value))
}

pub(crate) fn optional_number(value: Option<u64>) -> Result<Option<f64>, Failure> {
    value.map(number).transpose()
}

/// An empty vector with room for so many values: an array may have more than the module's memory can hold.
fn reserved<T>(count: u32) -> Result<Vec<T>, Failure> {
    let mut values = Vec::new();
    let room = usize::try_from(count).unwrap_or(usize::MAX);
    let bytes = room.saturating_mul(size_of::<T>());
    values.try_reserve_exact(room).map_err(|_| Failure::Memory(bytes))?;
    Ok(values)
}

macro_rules! copies {
    ($($name:ident: $array:ty => $type:ty;)+) => {
        $(pub(crate) fn $name(array: &$array) -> Result<Vec<$type>, Failure> {
            let mut values = reserved(array.length())?;
            values.resize(values.capacity().min(usize::try_from(array.length()).unwrap_or(0)), <$type>::default());
            array.copy_to(&mut values);
            Ok(values)
        })+
    };
}

copies! {
    bytes: Uint8Array => u8;
    floats: Float32Array => f32;
    integers: Int16Array => i16;
    indices: Uint32Array => u32;
}

/// The byte arrays of an array, which holds nothing else.
pub(crate) fn byte_arrays(array: &Array) -> Result<Vec<Vec<u8>>, Failure> {
    array.iter().map(|value| bytes(value.unchecked_ref::<Uint8Array>())).collect()
}

/// Makes sure that the memory for `more` bytes is there, twice over because buffers grow by doubling: a buffer of the
/// library that cannot grow ends the instance.
pub(crate) fn make_room(held: usize, more: usize) -> Result<(), Failure> {
    const SMALL: usize = 1 << 20;
    let room = held.saturating_add(more).saturating_mul(2);
    if more <= SMALL || Vec::<u8>::new().try_reserve_exact(room).is_ok() {
        return Ok(());
    }
    Err(Failure::Memory(more))
}

/// Bytes as an array of JavaScript's own.
pub(crate) fn byte_array(bytes: &[u8]) -> Uint8Array {
    Uint8Array::from(bytes)
}

/// A value, or `null`.
pub(crate) fn or_null(value: Option<impl Into<JsValue>>) -> JsValue {
    value.map_or(JsValue::NULL, Into::into)
}
