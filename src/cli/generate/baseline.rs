//! General compressors on the same integers, per sequence, for comparison.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// Bits that general compressors need for the same integers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Baseline {
    /// zstd -19.
    pub zstd: u64,
    /// Deflate -9, zlib framing.
    pub deflate: u64,
    /// The integers as they are.
    pub raw: u64,
}

/// Compresses `y`, `[T, E]`, in sequences of `context` frames, frame by frame.
///
/// Integers are int8, or int16 if any value of the whole run exceeds int8.
///
/// # Errors
/// Those of the compressors.
pub fn measure(y: &[i16], width: usize, context: usize) -> std::io::Result<Baseline> {
    let small = y.iter().all(|value| i8::try_from(*value).is_ok());
    let mut sum = Baseline::default();
    for sequence in y.chunks(width * context) {
        let bytes: Vec<u8> = if small {
            sequence.iter().map(|value| value.to_le_bytes()[0]).collect()
        } else {
            sequence.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        let mut deflate = ZlibEncoder::new(Vec::new(), Compression::best());
        deflate.write_all(&bytes)?;
        sum.deflate += 8 * deflate.finish()?.len() as u64;
        sum.zstd += 8 * zstd::bulk::compress(&bytes, 19)?.len() as u64;
        sum.raw += 8 * bytes.len() as u64;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_beyond_int8_take_two_bytes() {
        let small = measure(&[0; 1024], 4, 256).unwrap();
        assert_eq!(small.raw, 8 * 1024);
        assert!(small.zstd < 1024 && small.deflate < 1024);
        assert_eq!(measure(&[200; 1024], 4, 256).unwrap().raw, 16 * 1024);
    }
}
