//! General compressors on the same integers: time and size, for comparison.

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Result, bail};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

/// What a compressor took for all sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compressed {
    /// Bits a frame.
    pub bits: f64,
    /// Seconds a frame.
    pub encode: f64,
    /// Seconds a frame.
    pub decode: f64,
}

/// A general compressor at a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressor {
    /// zstd.
    Zstd(i32),
    /// Deflate in zlib framing.
    Deflate(u32),
}

impl Compressor {
    /// The compressors of the comparison.
    pub const ALL: [Compressor; 3] = [Compressor::Zstd(19), Compressor::Zstd(3), Compressor::Deflate(9)];

    /// Name with level.
    pub fn name(self) -> String {
        match self {
            Compressor::Zstd(level) => format!("zstd -{level}"),
            Compressor::Deflate(level) => format!("deflate -{level}"),
        }
    }

    fn compress(self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Compressor::Zstd(level) => zstd::bulk::compress(bytes, level),
            Compressor::Deflate(level) => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }

    fn decompress(self, bytes: &[u8], len: usize) -> std::io::Result<Vec<u8>> {
        match self {
            Compressor::Zstd(_) => zstd::bulk::decompress(bytes, len),
            Compressor::Deflate(_) => {
                let mut out = Vec::with_capacity(len);
                ZlibDecoder::new(bytes).read_to_end(&mut out)?;
                Ok(out)
            }
        }
    }

    /// Compresses sequences of integers, frame by frame, each sequence on its own; every frame is `width` values.
    ///
    /// # Errors
    /// Those of the compressor.
    pub fn measure(self, sequences: &[Vec<u8>], frames: usize) -> Result<Compressed> {
        let mut sum = Compressed::default();
        for sequence in sequences {
            let clock = Instant::now();
            let packed = self.compress(sequence)?;
            sum.encode += clock.elapsed().as_secs_f64();
            let clock = Instant::now();
            let unpacked = self.decompress(&packed, sequence.len())?;
            sum.decode += clock.elapsed().as_secs_f64();
            if unpacked != *sequence {
                bail!("{} gave back other integers", self.name());
            }
            sum.bits += 8.0 * packed.len() as f64;
        }
        let a_frame = |value: f64| value / frames.max(1) as f64;
        Ok(Compressed { bits: a_frame(sum.bits), encode: a_frame(sum.encode), decode: a_frame(sum.decode) })
    }
}

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

/// Compresses Y, `[T, E]`, as [`sequences`] has it.
///
/// # Errors
/// Those of the compressors.
pub fn baseline(y: &[i16], width: usize, context: usize) -> std::io::Result<Baseline> {
    let bits = |bytes: &[u8]| 8 * bytes.len() as u64;
    let mut sum = Baseline::default();
    for sequence in sequences(y, width, context) {
        sum.zstd += bits(&Compressor::Zstd(19).compress(&sequence)?);
        sum.deflate += bits(&Compressor::Deflate(9).compress(&sequence)?);
        sum.raw += bits(&sequence);
    }
    Ok(sum)
}

/// Y, `[T, E]`, as the bytes of sequences of `context` frames: int8, or int16 if any value needs it.
pub fn sequences(y: &[i16], width: usize, context: usize) -> Vec<Vec<u8>> {
    let small = y.iter().all(|value| i8::try_from(*value).is_ok());
    let bytes = if small { 1 } else { 2 };
    y.chunks(width * context)
        .map(|sequence| sequence.iter().flat_map(|value| value.to_le_bytes().into_iter().take(bytes)).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_beyond_int8_take_two_bytes() {
        assert_eq!(sequences(&[-1; 24], 4, 4), [vec![255; 16], vec![255; 8]]);
        assert_eq!(sequences(&[-1, 128], 1, 4), [[255, 255, 128, 0]]);
        let small = baseline(&[0; 1024], 4, 256).unwrap();
        assert_eq!(small.raw, 8 * 1024);
        assert!(small.zstd < 1024 && small.deflate < 1024);
        assert_eq!(baseline(&[200; 1024], 4, 256).unwrap().raw, 16 * 1024);
    }

    #[test]
    fn every_compressor_gives_the_integers_back() {
        let sequences = sequences(&[3; 4096], 16, 64);
        for compressor in Compressor::ALL {
            let measured = compressor.measure(&sequences, 256).unwrap();
            assert!(measured.bits > 0.0 && measured.bits < 64.0, "{}", compressor.name());
        }
    }
}
