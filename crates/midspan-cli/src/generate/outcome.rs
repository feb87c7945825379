//! What a generation measured, in constant memory.

use super::channel::TailReport;
use crate::compressors::{Baseline, baseline};
use midspan::codec::Sent;
use midspan::engine::cost::Cost;

/// What a generation measured, from the head's side and the tail's.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// Frames sent.
    pub frames: usize,
    /// Ideal bits by the frozen tables, prompt included.
    pub cost: Cost,
    /// Bytes on the wire from head to tail: header, chunks, checkpoints, end.
    pub bytes: u64,
    /// Bytes of the stream header among them.
    pub header_bytes: u64,
    /// Bits of the check in each chunk.
    pub check_bits: usize,
    /// What the encoder counted.
    pub sent: Sent,
    /// Bits that general compressors need for Y of all frames.
    pub baseline: Baseline,
    /// Encoding times (quantiser, h, g_y and coder) of chunks of one frame.
    pub encode: Times,
    /// What the tail measured.
    pub tail: TailReport,
    /// Whether all W and Y of the tail equal the head's.
    pub matched: bool,
    /// Seconds from the first token to the last.
    pub seconds: f64,
}

/// Bits that general compressors need for Y. Each sequence of the host's context length is compressed when it is
/// complete.
pub(super) struct Sizes {
    width: usize,
    context: usize,
    /// Y of the incomplete sequence.
    sequence: Vec<i16>,
    sum: Baseline,
}

impl Sizes {
    /// For frames of `width` values in sequences of `context` frames.
    pub(super) fn new(width: usize, context: usize) -> Self {
        Self { width, context, sequence: Vec::new(), sum: Baseline::default() }
    }

    /// Takes Y of the next frames, `[T, E]`. Returns whether a sequence was completed, in which case the call takes a
    /// while.
    ///
    /// # Errors
    /// Those of the compressors.
    pub(super) fn add(&mut self, y: &[i16]) -> anyhow::Result<bool> {
        self.sequence.extend_from_slice(y);
        let whole = self.width * self.context;
        let mut any = false;
        while self.sequence.len() >= whole {
            let rest = self.sequence.split_off(whole);
            self.compress()?;
            self.sequence = rest;
            any = true;
        }
        Ok(any)
    }

    fn compress(&mut self) -> anyhow::Result<()> {
        let Baseline { zstd, deflate } = baseline(&self.sequence, self.width, self.context)?;
        self.sum.zstd += zstd;
        self.sum.deflate += deflate;
        Ok(())
    }

    /// Bits of all frames.
    ///
    /// # Errors
    /// Those of the compressors.
    pub(super) fn finish(mut self) -> anyhow::Result<Baseline> {
        if !self.sequence.is_empty() {
            self.compress()?;
        }
        Ok(self.sum)
    }
}

/// How many parts [`Times`] divides an octave into, so that the median is right within 0.3 %.
const PARTS: f64 = 128.0;
/// Times below this, in seconds, are not distinguished.
const SHORTEST: f64 = 1e-8;
/// Octaves from the shortest time on, up to a minute and a half.
const OCTAVES: f64 = 33.0;

/// Collects durations for their median, in constant memory for any number of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    counts: Vec<u64>,
    sum: u64,
}

impl Times {
    /// Adds a duration, in seconds.
    pub(super) fn add(&mut self, seconds: f64) {
        if self.counts.is_empty() {
            self.counts = vec![0; (PARTS * OCTAVES) as usize];
        }
        let place = PARTS * (seconds.max(SHORTEST) / SHORTEST).log2();
        let place = (place as usize).min(self.counts.len() - 1);
        self.counts[place] += 1;
        self.sum += 1;
    }

    /// The median in seconds; `None` if there are no durations.
    pub(super) fn median(&self) -> Option<f64> {
        let mut before = 0;
        let place = self.counts.iter().position(|count| {
            before += count;
            before > self.sum / 2
        })?;
        // The middle of the part.
        Some(SHORTEST * ((place as f64 + 0.5) / PARTS).exp2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::channel::TailMessage;
    use midspan::model::synthetic::Random;

    #[test]
    fn medians_are_right_within_a_third_of_a_percent() {
        assert_eq!(Times::default().median(), None);
        let mut random = Random::new(1);
        for scale in [1e-6, 3e-4, 0.7] {
            let mut times = Times::default();
            let mut all: Vec<f64> =
                (0..1_001).map(|_| scale * (1.0 + (random.next() >> 40) as f64 / (1 << 24) as f64)).collect();
            all.iter().for_each(|seconds| times.add(*seconds));
            all.sort_by(f64::total_cmp);
            let median = times.median().unwrap();
            assert!((median / all[500] - 1.0).abs() < 0.003, "{median} {}", all[500]);
        }
        let mut times = Times::default();
        [0.0, -1.0, 1e9, f64::NAN].into_iter().for_each(|seconds| times.add(seconds));
        assert!(times.median().is_some_and(f64::is_finite));
    }

    /// A run of a million tokens ends like any other.
    #[test]
    fn the_report_of_a_long_run_is_short() {
        let mut times = Times::default();
        (0..1_000_000).for_each(|i| times.add(f64::from(i) * 1e-6));
        let digest = "0".repeat(64);
        let report = TailReport {
            w_sha256: digest.clone(),
            y_sha256: digest,
            frames: 1_000_000,
            confirmed: 3_907,
            decode_seconds: times.median(),
        };
        let mut bytes = Vec::new();
        TailMessage::Report(report.clone()).write(&mut bytes).unwrap();
        assert!(bytes.len() < 1_000, "{}", bytes.len());
        assert_eq!(TailMessage::read(&mut bytes.as_slice()).unwrap(), TailMessage::Report(report));
    }

    #[test]
    fn sequences_are_compressed_as_they_become_whole() {
        let y: Vec<i16> = (0..7 * 11).map(|i| (i * i % 23) as i16).collect();
        let whole = baseline(&y, 7, 4).unwrap();
        let mut sizes = Sizes::new(7, 4);
        let wholes: Vec<bool> =
            [&y[..7 * 9], &y[7 * 9..7 * 10], &y[7 * 10..]].map(|part| sizes.add(part).unwrap()).to_vec();
        assert_eq!(wholes, [true, false, false]);
        assert_eq!(sizes.finish().unwrap(), whole);
    }
}
