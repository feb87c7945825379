//! Time and size of general compressors on the same integers, for comparison.

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Result, bail};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

/// What a compressor took for all sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Compressed {
    /// Bits a frame.
    pub bits: f64,
    /// Seconds a frame.
    pub encode: f64,
    /// Seconds a frame.
    pub decode: f64,
}

/// A general compressor at a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compressor {
    /// zstd.
    Zstd(i32),
    /// Deflate in zlib framing.
    Deflate(u32),
}

impl Compressor {
    /// The compressors of the comparison.
    pub(crate) const ALL: [Compressor; 3] = [Compressor::Zstd(19), Compressor::Zstd(3), Compressor::Deflate(9)];

    /// Name with level.
    pub(crate) fn name(self) -> String {
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

    /// Compresses each sequence of integers separately, in whichever form gives the fewest bytes. `frames` is the total
    /// number of frames in all sequences.
    ///
    /// # Errors
    /// Those of the compressor.
    pub(crate) fn measure(self, sequences: &[Forms], frames: usize) -> Result<Compressed> {
        let mut sum = Compressed::default();
        for Forms(forms) in sequences {
            let mut best: Option<Compressed> = None;
            for form in forms {
                let clock = Instant::now();
                let packed = self.compress(form)?;
                let encode = clock.elapsed().as_secs_f64();
                let clock = Instant::now();
                let unpacked = self.decompress(&packed, form.len())?;
                let decode = clock.elapsed().as_secs_f64();
                if unpacked != *form {
                    bail!("{} gave back other integers", self.name());
                }
                let bits = 8.0 * packed.len() as f64;
                if best.is_none_or(|best| bits < best.bits) {
                    best = Some(Compressed { bits, encode, decode });
                }
            }
            let best = best.unwrap_or_default();
            sum.bits += best.bits;
            sum.encode += best.encode;
            sum.decode += best.decode;
        }
        let a_frame = |value: f64| value / frames.max(1) as f64;
        Ok(Compressed { bits: a_frame(sum.bits), encode: a_frame(sum.encode), decode: a_frame(sum.decode) })
    }
}

/// Bits that general compressors need for the same integers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Baseline {
    /// zstd -19.
    pub zstd: f64,
    /// Deflate -9, zlib framing.
    pub deflate: f64,
}

/// Compresses Y, `[T, E]`, in the form that [`sequences`] returns.
///
/// # Errors
/// Those of the compressors.
pub(crate) fn baseline(y: &[i16], width: usize, context: usize) -> Result<Baseline> {
    let sequences = sequences(y, width, context);
    let bits = |compressor: Compressor| Ok::<_, anyhow::Error>(compressor.measure(&sequences, 1)?.bits);
    Ok(Baseline { zstd: bits(Compressor::Zstd(19))?, deflate: bits(Compressor::Deflate(9))? })
}

/// The integers of a sequence as bytes, in every form that may suit a general compressor best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forms(Vec<Vec<u8>>);

/// Splits Y, `[T, E]`, into sequences of `context` frames. If all integers of a sequence fit a byte, it has one form: a
/// byte for each. Otherwise it has two forms: one in which an integer ≤ −128 or ≥ 128 is written as the byte −128
/// followed by its two bytes, and one with two bytes for each integer.
pub(crate) fn sequences(y: &[i16], width: usize, context: usize) -> Vec<Forms> {
    let is_byte = |value: i16| i8::try_from(value).is_ok_and(|byte| byte != i8::MIN);
    let forms = |sequence: &[i16]| {
        if sequence.iter().all(|value| i8::try_from(*value).is_ok()) {
            return Forms(vec![sequence.iter().map(|value| value.to_le_bytes()[0]).collect()]);
        }
        let mut bytes = Vec::with_capacity(sequence.len());
        for &value in sequence {
            let [low, high] = value.to_le_bytes();
            if is_byte(value) { bytes.push(low) } else { bytes.extend([0x80, low, high]) }
        }
        Forms(vec![bytes, sequence.iter().flat_map(|value| value.to_le_bytes()).collect()])
    };
    y.chunks(width * context).map(forms).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use midspan::model::synthetic::Random;

    #[test]
    fn integers_beyond_a_byte_have_two_forms_in_their_own_sequence_alone() {
        let one = |bytes: &[u8]| Forms(vec![bytes.to_vec()]);
        assert_eq!(sequences(&[-1; 24], 4, 4), [one(&[255; 16]), one(&[255; 8])]);
        let two = Forms(vec![vec![1, 128, 128, 0, 128, 128, 255], vec![1, 0, 128, 0, 128, 255]]);
        assert_eq!(sequences(&[-128, 127, 0, 1, 128, -128], 1, 3), [one(&[128, 127, 0]), two]);
    }

    #[test]
    fn the_smaller_form_counts() {
        let small = baseline(&[0; 1024], 4, 256).unwrap();
        assert!(small.zstd < 1024.0 && small.deflate < 1024.0);
        // Noise of 5 bits: if a single integer does not fit a byte, bytes are still the better form.
        let mut random = Random::new(1);
        let mut noise = || random.within(0, 31) as i16;
        let mut y: Vec<i16> = (0..4096).map(|_| noise()).collect();
        let bytes = baseline(&y, 16, 256).unwrap();
        y[7] = 200;
        let with_one = baseline(&y, 16, 256).unwrap();
        assert!(
            with_one.zstd < bytes.zstd + 200.0 && with_one.deflate < bytes.deflate + 200.0,
            "{bytes:?} {with_one:?}"
        );
        // If no integer fits a byte, two bytes for each are better.
        let y: Vec<i16> = (0..4096).map(|_| 200 + noise() * 40).collect();
        let [Forms(forms)] = &sequences(&y, 16, 256)[..] else { panic!("one sequence") };
        let zstd = |form: &Vec<u8>| 8.0 * Compressor::Zstd(19).compress(form).unwrap().len() as f64;
        let (bytes, pairs) = (zstd(&forms[0]), zstd(&forms[1]));
        assert!(pairs < bytes && baseline(&y, 16, 256).unwrap().zstd == pairs, "{bytes} {pairs}");
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
