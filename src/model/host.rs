//! The digest of a host's weights (spec 4.7). A stream header may state it, so that no other host takes its frames.
//!
//! ```
//! use midspan::model::{HostTensor, host_digest};
//!
//! # fn main() -> Result<(), midspan::error::Error> {
//! let (weight, bias) = ([0, 0, 128, 63, 0, 0, 0, 192], [1, 2, 255]);
//! let weight = HostTensor { name: "head.weight", dtype: "F32", shape: &[1, 2], data: &weight };
//! let bias = HostTensor { name: "head.bias", dtype: "I8", shape: &[3], data: &bias };
//! assert_eq!(host_digest([weight, bias])?, host_digest([bias, weight])?);
//! # Ok(())
//! # }
//! ```

#![deny(clippy::float_arithmetic)]

use sha2::{Digest, Sha256};

use super::header::Header;
use crate::error::{Detail, Error, ErrorKind, Name, Result};
use crate::number::to_u64;

/// The first bytes of the input to a host digest's SHA-256.
const PREFIX: &[u8] = b"midspan-host-1\n";

/// Name, code and bits of each dtype (spec 4.7).
const DTYPES: [(&str, u8, u64); 22] = [
    ("I8", 0, 8),
    ("U8", 1, 8),
    ("I16", 2, 16),
    ("U16", 3, 16),
    ("I32", 4, 32),
    ("I64", 5, 64),
    ("F32", 6, 32),
    ("U32", 7, 32),
    ("U64", 8, 64),
    ("F16", 9, 16),
    ("BF16", 10, 16),
    ("F64", 11, 64),
    ("BOOL", 12, 8),
    ("F8_E4M3", 13, 8),
    ("F8_E5M2", 14, 8),
    ("F8_E8M0", 15, 8),
    ("F8_E4M3FNUZ", 16, 8),
    ("F8_E5M2FNUZ", 17, 8),
    ("F6_E2M3", 18, 6),
    ("F6_E3M2", 19, 6),
    ("F4", 20, 4),
    ("C64", 21, 64),
];

/// One tensor of a host's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostTensor<'a> {
    /// Its name; every name is different.
    pub name: &'a str,
    /// The type of its values, by its name in safetensors files: `F32`, `BF16`.
    pub dtype: &'a str,
    /// Its dimensions; none for a single value.
    pub shape: &'a [u64],
    /// Its values, row-major, little-endian.
    pub data: &'a [u8],
}

/// The digest of a host's weights, given in any order (spec 4.7).
///
/// # Errors
/// [`ErrorKind::WrongShape`] for data that do not fit dtype and shape, an unknown dtype, two tensors of the same name,
/// or no tensor.
pub fn host_digest<'a>(tensors: impl IntoIterator<Item = HostTensor<'a>>) -> Result<[u8; 32]> {
    let mut tensors: Vec<HostTensor<'a>> = tensors.into_iter().collect();
    tensors.sort_by_key(|tensor| tensor.name);
    let mut digest = HostDigest::new();
    for HostTensor { name, dtype, shape, data } in tensors {
        digest.tensor(name, dtype, shape)?;
        digest.data(data)?;
    }
    digest.finish()
}

/// The digest of the weights in a safetensors file that is in memory. [`crate::adapter::host_digest`] reads files.
///
/// # Errors
/// [`ErrorKind::ModelFileSyntax`] for bytes that are not such a file; those of [`host_digest`].
pub fn host_digest_of_file(bytes: &[u8]) -> Result<[u8; 32]> {
    let (header, data) = Header::split(bytes)?;
    let length = to_u64(data.len());
    let tensors = header.tensors(length)?;
    let bytes_at = |range: (u64, u64)| {
        let (start, end) = (usize::try_from(range.0).ok()?, usize::try_from(range.1).ok()?);
        data.get(start..end)
    };
    host_digest(tensors.iter().map(|tensor| HostTensor {
        name: &tensor.name,
        dtype: &tensor.dtype,
        shape: &tensor.shape,
        data: bytes_at(tensor.offsets).unwrap_or_default(),
    }))
}

/// The digest of a host's weights, given tensor by tensor and piece by piece: for weights that are not in memory.
///
/// Call order: [`HostDigest::tensor`] in ascending order of the names compared as bytes, each followed by its data in
/// [`HostDigest::data`]; [`HostDigest::finish`].
#[derive(Clone, Debug)]
pub struct HostDigest {
    hash: Sha256,
    last: Option<String>,
    /// Bytes that the last tensor still lacks.
    left: u64,
}

impl Default for HostDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl HostDigest {
    /// A digest of no tensor yet.
    #[must_use]
    pub fn new() -> HostDigest {
        HostDigest { hash: Sha256::new_with_prefix(PREFIX), last: None, left: 0 }
    }

    /// Begins the next tensor.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] for a name that is not above the last one, an unknown dtype, a shape without a whole
    /// number of bytes, or a last tensor that lacks data. Nothing changes then.
    pub fn tensor(&mut self, name: &str, dtype: &str, shape: &[u64]) -> Result<()> {
        self.check_whole()?;
        let wrong = |problem| Err(wrong(name, problem));
        match &self.last {
            Some(last) if last == name => return wrong("the name stands twice"),
            Some(last) if last.as_str() > name => return wrong("the name is below the last one"),
            _ => {}
        }
        let Some((_, code, bits)) = DTYPES.iter().find(|(known, ..)| *known == dtype) else {
            return wrong("an unknown dtype");
        };
        let bits = shape.iter().try_fold(*bits, |product, size| product.checked_mul(*size));
        let Some(bits) = bits.filter(|bits| bits & 7 == 0) else {
            return wrong("no whole number of bytes, or more than 2^61");
        };
        let (Ok(name_length), Ok(rank)) = (u32::try_from(name.len()), u32::try_from(shape.len())) else {
            return wrong("a name or a shape that is too long");
        };
        self.hash.update(name_length.to_le_bytes());
        self.hash.update(name.as_bytes());
        self.hash.update([*code]);
        self.hash.update(rank.to_le_bytes());
        shape.iter().for_each(|size| self.hash.update(size.to_le_bytes()));
        self.last = Some(name.to_owned());
        self.left = bits >> 3;
        Ok(())
    }

    /// The next bytes of the tensor's data.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] for more bytes than the tensor has. Nothing changes then.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let given = to_u64(bytes.len());
        match self.left.checked_sub(given) {
            Some(left) => {
                self.left = left;
                self.hash.update(bytes);
                Ok(())
            }
            None => Err(wrong(self.last.as_deref().unwrap_or(""), "more data than dtype and shape say")),
        }
    }

    /// The digest of all tensors.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] if the last tensor lacks data, or there was none.
    pub fn finish(self) -> Result<[u8; 32]> {
        self.check_whole()?;
        match self.last {
            Some(_) => Ok(self.hash.finalize().into()),
            None => Err(Error::of_call(ErrorKind::WrongShape).with_detail("a host without weights")),
        }
    }

    fn check_whole(&self) -> Result<()> {
        match &self.last {
            Some(last) if self.left > 0 => Err(wrong(last, "less data than dtype and shape say")),
            _ => Ok(()),
        }
    }
}

fn wrong(name: &str, problem: &'static str) -> Error {
    Error::of_call(ErrorKind::WrongShape).with(Detail::Tensor { name: Name::new(name), problem })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
mod tests {
    use std::collections::HashMap;

    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use crate::adapter::hex;

    /// The example of spec 4.7; its digest comes from Python's hashlib.
    const EXAMPLE: &str = "d35f85c69e15bee6c1fd91040eccb5c03862e309a23101a2b9d4e3cd42fa9733";

    fn example() -> [HostTensor<'static>; 3] {
        [
            HostTensor { name: "head.weight", dtype: "F32", shape: &[1, 2], data: &[0, 0, 128, 63, 0, 0, 0, 192] },
            HostTensor { name: "Head.weight", dtype: "BF16", shape: &[2], data: &[128, 63, 0, 192] },
            HostTensor { name: "head", dtype: "BOOL", shape: &[], data: &[1] },
        ]
    }

    #[test]
    fn the_example_of_the_specification() {
        assert_eq!(hex(&host_digest(example()).unwrap()), EXAMPLE);
    }

    #[test]
    fn every_part_counts() {
        let whole = host_digest(example()).unwrap();
        let with = |change: &dyn Fn(&mut [HostTensor<'static>; 3])| {
            let mut tensors = example();
            change(&mut tensors);
            host_digest(tensors).unwrap()
        };
        assert_eq!(with(&|tensors| tensors.reverse()), whole);
        assert_ne!(with(&|tensors| tensors[2].name = "heae"), whole);
        assert_ne!(with(&|tensors| tensors[2].dtype = "U8"), whole);
        assert_ne!(with(&|tensors| tensors[2].shape = &[1]), whole);
        assert_ne!(with(&|tensors| tensors[0].shape = &[2, 1]), whole);
        assert_ne!(with(&|tensors| tensors[2].data = &[0]), whole);
        assert_ne!(host_digest(example().into_iter().take(2)).unwrap(), whole);
    }

    /// Every dtype that safetensors knows has a code of its own.
    #[test]
    fn every_dtype_of_safetensors_has_a_code() {
        use Dtype::*;
        let all = [
            I8,
            U8,
            I16,
            U16,
            I32,
            I64,
            F32,
            U32,
            U64,
            F16,
            BF16,
            F64,
            BOOL,
            F8_E4M3,
            F8_E5M2,
            F8_E8M0,
            F8_E4M3FNUZ,
            F8_E5M2FNUZ,
            F6_E2M3,
            F6_E3M2,
            F4,
            C64,
        ];
        let mut seen = std::collections::HashSet::new();
        for (code, dtype) in all.into_iter().enumerate() {
            let name = dtype.to_string();
            let (_, own, bits) = DTYPES.iter().find(|(known, ..)| *known == name).unwrap();
            assert_eq!((usize::from(*own), *bits), (code, dtype.bitsize() as u64), "{name}");
            let data = vec![7; dtype.bitsize()];
            let view = TensorView::new(dtype, vec![8], &data).unwrap();
            let file = safetensors::serialize([("x", view)], None).unwrap();
            let tensor = HostTensor { name: "x", dtype: &name, shape: &[8], data: &data };
            let digest = host_digest([tensor]).unwrap();
            assert_eq!(host_digest_of_file(&file).unwrap(), digest, "{name}");
            assert!(seen.insert(digest), "{name}");
        }
    }

    #[test]
    fn order_and_metadata_of_a_file_do_not_count() {
        let (a, b) = ([1; 8], [2; 6]);
        let write = |order: [usize; 2], metadata: Option<HashMap<String, String>>| {
            // By hand, since the library writes only one order.
            let entries = [("a.w", "F32", "[2]", &a[..]), ("b \\\"é\\u00e9", "I16", "[3,1]", &b[..])];
            let (mut header, mut data) = (String::from("{"), Vec::new());
            for (key, value) in metadata.iter().flatten() {
                header.push_str(&format!("\"__metadata__\":{{\"{key}\":\"{value}\"}},"));
            }
            for (i, entry) in order.into_iter().enumerate() {
                let (name, dtype, shape, bytes) = entries[entry];
                let (from, to) = (data.len(), data.len() + bytes.len());
                let comma = if i == 0 { "" } else { " , " };
                header.push_str(&format!(
                    "{comma}\"{name}\": {{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}"
                ));
                data.extend_from_slice(bytes);
            }
            header.push_str("}   ");
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
        };
        let metadata = HashMap::from([("host".to_string(), "{brace} [1]".to_string())]);
        let digest = host_digest_of_file(&write([0, 1], None)).unwrap();
        for file in [write([1, 0], None), write([0, 1], Some(metadata.clone())), write([1, 0], Some(metadata))] {
            safetensors::SafeTensors::deserialize(&file).unwrap();
            assert_eq!(host_digest_of_file(&file).unwrap(), digest);
        }
        let tensors = [
            HostTensor { name: "a.w", dtype: "F32", shape: &[2], data: &a },
            HostTensor { name: "b \"éé", dtype: "I16", shape: &[3, 1], data: &b },
        ];
        assert_eq!(host_digest(tensors).unwrap(), digest);
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        let tensor = HostTensor { name: "x", dtype: "F32", shape: &[2], data: &[0; 8] };
        assert!(host_digest([tensor]).is_ok());
        for (bad, told) in [
            (HostTensor { dtype: "F33", ..tensor }, "an unknown dtype"),
            (HostTensor { data: &[0; 7], ..tensor }, "less data"),
            (HostTensor { data: &[0; 9], ..tensor }, "more data"),
            (HostTensor { dtype: "F4", shape: &[3], data: &[0; 2], ..tensor }, "no whole number of bytes"),
            (HostTensor { shape: &[1 << 40, 1 << 40], ..tensor }, "no whole number of bytes, or more than 2^61"),
        ] {
            let error = host_digest([bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongShape);
            assert!(error.to_string().contains(told), "{error}");
        }
        assert!(host_digest([tensor, tensor]).unwrap_err().to_string().contains("x: the name stands twice"));
        assert!(host_digest([]).unwrap_err().to_string().contains("without weights"));
        let mut digest = HostDigest::new();
        digest.tensor("b", "U8", &[1]).unwrap();
        assert!(digest.tensor("c", "U8", &[1]).unwrap_err().to_string().contains("less data"));
        digest.data(&[1]).unwrap();
        assert!(digest.tensor("a", "U8", &[1]).unwrap_err().to_string().contains("below the last one"));
        assert!(digest.finish().is_ok());
    }
}
