//! Reads hidden states from a .safetensors file or from bare rows, a part at a time.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::files::{Input, input_name};
use super::rows::FormatArg;
use super::terminal::say;
use midspan::engine::quantiser::to_f32;
use midspan::wire;

/// The longest header of a .safetensors file in bytes, as in that format's library.
const HEADER_MAX: u64 = 100_000_000;

/// Types of values that are converted to f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// Types of which every value is an f32.
    Exact(wire::Dtype),
    /// IEEE 754 binary64. Values that f32 cannot represent are rounded.
    Double,
}

impl Values {
    fn bytes(self) -> usize {
        match self {
            Values::Exact(dtype) => dtype.bytes(),
            Values::Double => 8,
        }
    }
}

/// Hidden states, `[T, E]`, frame by frame.
pub(crate) struct States {
    input: BufReader<Input>,
    /// Its name in messages, with the tensor's name.
    name: String,
    /// All tensors of a .safetensors file.
    tensors: Header,
    values: Values,
    width: usize,
    /// Frames that are still to come; `None` if that is unknown.
    left: Option<u64>,
    /// Bytes after the tensor.
    behind: u64,
    /// Frames read.
    frames: u64,
    /// Values that were rounded.
    rounded: u64,
    bytes: Vec<u8>,
}

impl States {
    /// Opens an input for frames of `width` values.
    ///
    /// # Errors
    /// The file is missing or is not a .safetensors file, or the tensor is missing or has another type or shape.
    pub(crate) fn open(path: &Path, format: FormatArg, tensor: &str, width: usize) -> Result<Self> {
        let input = BufReader::new(Input::open(path)?);
        let states = |input, name, tensors, values| Self {
            input,
            name,
            tensors,
            values,
            width,
            left: None,
            behind: 0,
            frames: 0,
            rounded: 0,
            bytes: Vec::new(),
        };
        let name = input_name(path);
        if format == FormatArg::Raw {
            return Ok(states(input, name, Header(BTreeMap::new()), Values::Exact(wire::Dtype::F32)));
        }
        let mut input = input;
        let header = Header::read(&mut input).with_context(|| name.clone())?;
        let Some(found) = header.0.get(tensor) else {
            let names: Vec<&str> = header.0.keys().map(String::as_str).take(8).collect();
            bail!("{name}: no tensor {tensor:?}; there is {names:?}");
        };
        let name = format!("{name}: tensor {tensor:?}");
        let values = match found.dtype {
            Dtype::F32 => Values::Exact(wire::Dtype::F32),
            Dtype::F16 => Values::Exact(wire::Dtype::F16),
            Dtype::BF16 => Values::Exact(wire::Dtype::Bf16),
            Dtype::F64 => Values::Double,
            other => bail!("{name} is {other:?}, not F32, F16, BF16 or F64"),
        };
        let frames = match found.shape[..] {
            [0, columns] | [1, 0, columns] if columns == width => {
                bail!("{name} holds no frame: its shape is {:?}", found.shape)
            }
            [frames, columns] | [1, frames, columns] if columns == width => frames as u64,
            _ => bail!(
                "{name} has the shape {:?}, not [T, {width}] or [1, T, {width}]: frames of the model's {width} values",
                found.shape
            ),
        };
        let (start, end) = found.data_offsets;
        let behind = header.end() - end as u64;
        let mut states = states(input, name, header, values);
        states.left = Some(frames);
        states.behind = behind;
        states.skip(start as u64)?;
        Ok(states)
    }

    /// Frames that are still to come, if the input says so.
    pub(crate) fn left(&self) -> Option<u64> {
        self.left
    }

    /// Whether the input is a .safetensors file with such a tensor.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.tensors.0.contains_key(tensor)
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        let skipped = io::copy(&mut (&mut self.input).take(bytes), &mut io::sink());
        if skipped.with_context(|| self.name.clone())? < bytes {
            bail!("{}: the file ends before its header says", self.name);
        }
        Ok(())
    }

    /// Replaces the contents of `hidden` with the next frames, `count` at most. Returns how many it read; 0 means that
    /// none are left.
    ///
    /// # Errors
    /// The input ends within a frame or too early, or a value is not finite.
    pub(crate) fn read(&mut self, count: usize, hidden: &mut Vec<f32>) -> Result<usize> {
        hidden.clear();
        let count = self.left.map_or(count, |left| count.min(usize::try_from(left).unwrap_or(usize::MAX)));
        let frame = self.width * self.values.bytes();
        self.bytes.clear();
        let wanted = (&mut self.input).take((count * frame) as u64);
        let read = { wanted }.read_to_end(&mut self.bytes).with_context(|| self.name.clone())?;
        let frames = read / frame;
        match &mut self.left {
            Some(_) if frames < count => bail!("{}: the file ends before its header says", self.name),
            None if read % frame != 0 => bail!("{}: ends within frame {}", self.name, self.frames + frames as u64),
            Some(left) => *left -= count as u64,
            None => {}
        }
        match self.values {
            Values::Exact(dtype) => hidden.extend(to_f32(dtype, &self.bytes)),
            Values::Double => {
                for bytes in self.bytes.as_chunks().0 {
                    let value = f64::from_le_bytes(*bytes);
                    let nearest = value as f32;
                    self.rounded += u64::from(f64::from(nearest) != value);
                    hidden.push(nearest);
                }
            }
        }
        if let Some(place) = hidden.iter().position(|value| !value.is_finite()) {
            let value = match self.values {
                Values::Exact(_) => f64::from(hidden[place]),
                Values::Double => f64::from_le_bytes(self.bytes.as_chunks().0[place]),
            };
            let beyond = if value.is_finite() { ", which is beyond f32," } else { "" };
            let (frame, element) = (self.frames + (place / self.width) as u64, place % self.width);
            bail!("{} has {value:?}{beyond} in frame {frame}, element {element}", self.name);
        }
        self.frames += frames as u64;
        Ok(frames)
    }

    /// Frames read so far.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Checks that the input is complete, and reports how many values were rounded.
    ///
    /// # Errors
    /// The input has no frames, or its length is not the one that it states.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.frames == 0 {
            bail!("{} holds no frame", self.name);
        }
        self.skip(self.behind)?;
        if self.left.is_some() && self.input.read(&mut [0]).with_context(|| self.name.clone())? > 0 {
            bail!("{}: the file goes on after what its header says", self.name);
        }
        if self.rounded > 0 {
            let values = self.frames * self.width as u64;
            say(&format!("{}: {} of {values} values of F64 were rounded to F32", self.name, self.rounded));
        }
        Ok(())
    }
}

/// The tensors of a .safetensors file, by their names.
struct Header(BTreeMap<String, TensorInfo>);

impl Header {
    /// Reads the header at the beginning of a file.
    fn read(input: &mut impl Read) -> Result<Header> {
        let mut text = Vec::new();
        let mut length = [0; 8];
        let outcome = input.read_exact(&mut length).and_then(|()| {
            let length = u64::from_le_bytes(length);
            let read = if length <= HEADER_MAX { input.take(length).read_to_end(&mut text)? as u64 } else { 0 };
            Ok(read == length)
        });
        match outcome {
            Ok(true) => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            Ok(false) | Err(_) => bail!("no safetensors file: it is shorter than its header, or the header too long"),
        }
        let header: Header = serde_json::from_slice(&text).context("no safetensors file")?;
        header.check().context("no safetensors file")?;
        Ok(header)
    }

    /// Bytes of all tensors.
    fn end(&self) -> u64 {
        self.0.values().map(|tensor| tensor.data_offsets.1 as u64).max().unwrap_or(0)
    }

    /// Checks that the tensors follow each other without gaps, and that each is as long as its type and shape say.
    fn check(&self) -> Result<()> {
        let mut tensors: Vec<(&String, &TensorInfo)> = self.0.iter().collect();
        tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
        let mut before = 0;
        for (name, tensor) in tensors {
            let values = tensor.shape.iter().try_fold(1_usize, |values, size| values.checked_mul(*size));
            let bits = values.and_then(|values| values.checked_mul(tensor.dtype.bitsize()));
            let end = bits.filter(|bits| bits % 8 == 0).and_then(|bits| (bits / 8).checked_add(before));
            if tensor.data_offsets != (before, end.unwrap_or(usize::MAX)) {
                bail!("tensor {name:?} does not stand where the others leave room for it");
            }
            before = tensor.data_offsets.1;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tensors by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Header, A::Error> {
                let mut tensors = BTreeMap::new();
                let mut metadata: Option<HashMap<String, String>> = None;
                while let Some(name) = entries.next_key::<String>()? {
                    let again = match name.as_str() {
                        "__metadata__" => metadata.replace(entries.next_value()?).is_some(),
                        _ => tensors.insert(name.clone(), entries.next_value()?).is_some(),
                    };
                    // It is unclear which of the two is meant.
                    if again {
                        return Err(A::Error::custom(format!("{name:?} is there twice")));
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
