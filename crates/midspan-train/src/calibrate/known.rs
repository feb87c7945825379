//! What the far end knows of a frame: side indices, and what they tell of the channels.
//!
//! Each age has a table: an entry for every side index and channel. The entries of a frame's indices add up to the
//! prediction of a channel. An entry is the mean of what the other tables leave of its frames, shrunk towards 0
//! (backfitting: T. Hastie and R. Tibshirani, Generalized additive models, 1986). What is left is louder after some
//! indices than after others, in all channels alike ([`super::levels`]). In the model file both are an embedding, with a
//! sum for each channel, which g_y's one layer turns into a mean, and one for the loudness, which it turns into levels.

use super::levels::levels;
use crate::freeze::tables::side_bank;
use crate::parallel::in_threads;
use crate::{Error, Result};
use midspan::model::side::{SideParts, VOCABULARY_MAX};

/// How often the tables of all ages are fitted in turn.
const ROUNDS: usize = 2;
/// A frame is in the tables that predict it, which makes its error look smaller than a new frame's. The error is
/// multiplied to make up for that, by at most this.
const OWN_MAX: f32 = 3.0;
/// Frames as loud as usual that the loudness of every index is averaged with.
const USUAL: f64 = 4.0;
/// Units of a loudness in a level.
const LOUDNESS_UNITS: i32 = 16;
/// The least part of the frames whose index occurred before.
const REPEATS: f64 = 0.02;
/// Side indices of so many frames predict a frame, its own included, if their tables have at most [`EMBEDDING_BYTES`];
/// else that of the frame itself.
const AGES: usize = 3;
/// The most bytes of an embedding. Of a larger vocabulary the last indices, which tokenizers give to rare tokens, say
/// nothing.
const EMBEDDING_BYTES: usize = 1 << 24;
/// Sums are multiplied by this on their way into g_y's layer: three of at most 127 stay within 16 bits.
const GAIN: i32 = 64;

/// Predictions by side indices.
#[derive(Clone, Debug)]
pub struct Known {
    /// Embedding and tables of the model file: a sum for each channel, and one for how loud a frame is.
    pub parts: SideParts,
    /// `[E]`: what one unit of a channel's input of g_y's layer is worth.
    pub unit: Vec<f32>,
    /// What they predict of each channel: E vectors of T values. A frame's own share in the tables is taken out.
    pub predicted: Vec<Vec<f32>>,
    /// `[T]`: how many levels louder than usual each frame is, by its own side index.
    pub louder: Vec<i32>,
    /// Bits that they save of each channel where its deviation counts, in the mean.
    pub saved: f64,
}

/// The multiplier and the shift of a layer's input that multiply by 64.
pub const INPUT_SCALE: (i32, u8) = (2 * GAIN, 1);

/// The multiplier and the shift of a layer's output that turn the sum for loudness, multiplied by 64, into levels.
pub const LOUDNESS_SCALE: (i32, u8) = (1, 10);

/// The side index of the frame `age` frames before each one, `None` before the start of its sequence or without one.
fn aged(indices: &[u32], starts: &[usize], age: usize, vocabulary: usize) -> Vec<Option<usize>> {
    let mut first = 0;
    let mut starts = starts.iter().copied().peekable();
    (0..indices.len())
        .map(|frame| {
            while let Some(start) = starts.next_if(|start| *start <= frame) {
                first = start;
            }
            let earlier = frame.checked_sub(age).filter(|earlier| *earlier >= first)?;
            Some(indices[earlier] as usize).filter(|index| *index < vocabulary)
        })
        .collect()
}

impl Known {
    /// Fits predictions to channels, E vectors of T values, whose frames have these side indices; sequences begin at
    /// `starts`. Indices at or above `vocabulary` say nothing.
    ///
    /// # Errors
    /// [`Error::Setting`] for a vocabulary that no model file can hold, or another number of indices than frames.
    pub fn fit(
        channels: &[Vec<f32>],
        indices: &[u32],
        starts: &[usize],
        vocabulary: usize,
        threads: usize,
    ) -> Result<Self> {
        if !(1..=VOCABULARY_MAX).contains(&vocabulary) {
            return Err(Error::setting("the vocabulary", vocabulary, format!("1 to {VOCABULARY_MAX}")));
        }
        let frames = channels.first().map_or(0, Vec::len);
        if indices.len() != frames {
            return Err(Error::setting("the number of side indices", indices.len(), format!("{frames}, one a frame")));
        }
        let width = channels.len().max(1);
        let vocabulary = vocabulary.min((EMBEDDING_BYTES / width).max(1));
        let ages = if AGES * vocabulary * width <= EMBEDDING_BYTES { AGES } else { 1 };
        let places: Vec<Vec<Option<usize>>> = (0..ages).map(|age| aged(indices, starts, age, vocabulary)).collect();
        let mut counts = vec![0.0_f32; ages * vocabulary];
        for (age, places) in places.iter().enumerate() {
            places.iter().flatten().for_each(|place| counts[age * vocabulary + place] += 1.0);
        }
        // For each channel, [A · V], and the shrinkage of each age.
        let fitted = in_threads(channels, threads, |channel| Ok(backfitted(channel, &places, &counts, vocabulary)))?;
        let (tables, shrinkages): (Vec<Vec<f32>>, Vec<Vec<f32>>) = fitted.into_iter().unzip();
        let (values, units) = quantised(&tables);
        let rows: Vec<usize> = (0..channels.len()).collect();
        let predicted = in_threads(&rows, threads, |row| {
            let (table, shrinkage, unit) = (&tables[*row], &shrinkages[*row], units[*row]);
            let predict = |(frame, x): (usize, &f32)| {
                // With one age what is left would be exactly `own` times as much if the frame were not in the table
                // itself. With several it is about that.
                let (mut told, mut own) = (0.0, 1.0_f32);
                for (age, places) in places.iter().enumerate() {
                    let Some(place) = places[frame] else { continue };
                    let at = age * vocabulary + place;
                    told += (table[at] / unit).round() * unit;
                    // An infinite shrinkage leaves nothing of the frame in the table.
                    let others = counts[at] + shrinkage[age] - 1.0;
                    own *= 1.0 + 1.0 / others;
                }
                x - own.min(OWN_MAX) * (x - told)
            };
            Ok(channels[*row].iter().enumerate().map(predict).collect::<Vec<f32>>())
        })?;
        let saved = in_threads(&rows, threads, |row| {
            let square = |x: f32| f64::from(x) * f64::from(x);
            let all: f64 = channels[*row].iter().map(|x| square(*x)).sum();
            let left: f64 = channels[*row].iter().zip(&predicted[*row]).map(|(x, p)| square(x - p)).sum();
            Ok(if all > 0.0 { 0.5 * (all / left.max(1e-12 * all)).log2() } else { 0.0 })
        })?;
        let saved = saved.iter().sum::<f64>() / saved.len().max(1) as f64;
        let loudness = loudness(channels, &predicted, &places[0], vocabulary);
        let louder = places[0].iter().map(|place| place.map_or(0, |place| whole_levels(loudness[place]))).collect();
        let mut embedding = Vec::with_capacity(values.len() + ages * vocabulary);
        for (entry, row) in values.chunks_exact(width).enumerate() {
            embedding.extend_from_slice(row);
            // Of the frame's own index alone.
            embedding.push(if entry < vocabulary { loudness[entry] } else { 0 });
        }
        let tables = side_bank(indices, vocabulary).into();
        Ok(Self {
            parts: SideParts { width: width + 1, vocabulary, embedding, tables },
            unit: units.iter().map(|unit| unit / GAIN as f32).collect(),
            predicted,
            louder,
            saved,
        })
    }
}

/// Levels of a loudness, as g_y's layer rounds them.
fn whole_levels(loudness: i8) -> i32 {
    (i32::from(loudness) + LOUDNESS_UNITS / 2) >> 4
}

/// How loud what is left of the frames of each side index is, in 1/16 of a level: `[V]`.
fn loudness(channels: &[Vec<f32>], predicted: &[Vec<f32>], places: &[Option<usize>], vocabulary: usize) -> Vec<i8> {
    // The mean magnitude over the channels, each by its own.
    let mut frames = vec![0.0_f64; places.len()];
    for (channel, predicted) in channels.iter().zip(predicted) {
        let left = || channel.iter().zip(predicted).map(|(x, p)| f64::from((x - p).abs()));
        let usual = (left().sum::<f64>() / places.len().max(1) as f64).max(1e-30);
        frames.iter_mut().zip(left()).for_each(|(sum, left)| *sum += left / usual);
    }
    let (mut sums, mut counts) = (vec![USUAL; vocabulary], vec![USUAL; vocabulary]);
    for (sum, place) in frames.iter().zip(places) {
        let Some(place) = place else { continue };
        sums[*place] += sum / channels.len().max(1) as f64;
        counts[*place] += 1.0;
    }
    let value = |(sum, count): (&f64, &f64)| {
        (f64::from(LOUDNESS_UNITS) * levels(sum / count)).round().clamp(-127.0, 127.0) as i8
    };
    sums.iter().zip(&counts).map(value).collect()
}

/// The tables of one channel, `[A · V]`, and for each age the number of frames of value 0 that its entries are averaged
/// with: the noise in a frame over the variance that indices explain, by the method of moments. It is infinite where they
/// explain nothing.
fn backfitted(
    channel: &[f32],
    places: &[Vec<Option<usize>>],
    counts: &[f32],
    vocabulary: usize,
) -> (Vec<f32>, Vec<f32>) {
    let (mut tables, mut shrinkages) = (vec![0.0_f32; counts.len()], vec![f32::INFINITY; places.len()]);
    let mut left = channel.to_vec();
    for _ in 0..ROUNDS {
        for ((age, places), shrinkage) in places.iter().enumerate().zip(&mut shrinkages) {
            let own = age * vocabulary..(age + 1) * vocabulary;
            let (table, counts) = (&mut tables[own.clone()], &counts[own]);
            let (mut sums, mut squares, mut frames) = (vec![0.0_f64; vocabulary], 0.0, 0.0);
            for (left, place) in left.iter_mut().zip(places) {
                let Some(place) = place else { continue };
                *left += table[*place];
                sums[*place] += f64::from(*left);
                squares += f64::from(*left) * f64::from(*left);
                frames += 1.0;
            }
            let used = || sums.iter().zip(counts).filter(|(_, count)| **count > 0.0);
            let (groups, between): (f64, f64) = used().fold((0.0, 0.0), |(groups, between), (sum, count)| {
                (groups + 1.0, between + sum * sum / f64::from(*count))
            });
            // Where hardly an index occurs twice, nothing says how much of a frame is noise.
            let repeats = frames - groups;
            let noise = ((squares - between) / f64::max(repeats, 1.0)).max(0.0);
            let signal = (between - groups * noise) / f64::max(frames, 1.0);
            // At least one: a frame alone never tells all.
            *shrinkage = if signal > 0.0 && repeats >= REPEATS * frames {
                f64::max(noise / signal, 1.0) as f32
            } else {
                f32::INFINITY
            };
            for ((entry, sum), count) in table.iter_mut().zip(&sums).zip(counts) {
                *entry = *sum as f32 / (count + *shrinkage);
            }
            for (left, place) in left.iter_mut().zip(places) {
                *left -= place.map_or(0.0, |place| table[place]);
            }
        }
    }
    (tables, shrinkages)
}

/// The tables, E vectors of A · V entries, in 8 bits: `[A · V, E]`, and what one unit of each channel is worth.
fn quantised(tables: &[Vec<f32>]) -> (Vec<i8>, Vec<f32>) {
    let largest = |table: &Vec<f32>| table.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let units: Vec<f32> = tables.iter().map(|table| (largest(table) / 127.0).max(1e-30)).collect();
    let entries = tables.first().map_or(0, Vec::len);
    let mut embedding = Vec::with_capacity(entries * tables.len());
    for entry in 0..entries {
        embedding.extend(tables.iter().zip(&units).map(|(table, unit)| (table[entry] / unit).round() as i8));
    }
    (embedding, units)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Channels, each the sum of what its frame's last two side indices say and of noise; and the indices.
    fn channels(width: usize, frames: usize, noise: f32, seed: u64) -> (Vec<Vec<f32>>, Vec<u32>, Vec<usize>) {
        let mut rng = Rng::new(7);
        let tables: Vec<Vec<f32>> = (0..2 * width).map(|_| (0..30).map(|_| 10.0 * rng.normal()).collect()).collect();
        let mut rng = Rng::new(seed);
        let indices: Vec<u32> = (0..frames).map(|_| rng.below(30) as u32).collect();
        let starts: Vec<usize> = (0..frames).step_by(50).collect();
        let before = aged(&indices, &starts, 1, 30);
        let channel = |row: usize| {
            let told = |frame: usize| {
                let earlier = before[frame].map_or(0.0, |index| 0.5 * tables[width + row][index]);
                tables[row][indices[frame] as usize] + earlier
            };
            (0..frames).map(told).collect::<Vec<f32>>()
        };
        let mut channels: Vec<Vec<f32>> = (0..width).map(channel).collect();
        channels.iter_mut().flatten().for_each(|x| *x += noise * rng.normal());
        (channels, indices, starts)
    }

    fn left(channels: &[Vec<f32>], predicted: &[Vec<f32>]) -> f64 {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let pairs = channels.iter().flatten().zip(predicted.iter().flatten());
        let (left, all) = pairs.fold((0.0, 0.0), |(left, all), (x, p)| (left + square(x - p), all + square(*x)));
        left / all
    }

    #[test]
    fn tables_tell_what_indices_tell() {
        for (width, noise) in [(5, 0.1), (100, 0.1)] {
            let (channels, indices, starts) = channels(width, 20_000, noise, 1);
            let known = Known::fit(&channels, &indices, &starts, 30, 2).unwrap();
            let left = left(&channels, &known.predicted);
            assert!(left < 0.001, "{width}: {left}");
            assert_eq!((known.parts.vocabulary, known.parts.width), (30, width + 1));
            assert_eq!(known.parts.embedding.len(), 3 * 30 * (width + 1));
        }
    }

    #[test]
    fn indices_that_say_nothing_predict_nothing() {
        // Each index occurs about twice: tables could repeat what they saw.
        let mut rng = Rng::new(3);
        let channels: Vec<Vec<f32>> = (0..3).map(|_| (0..4_000).map(|_| rng.normal()).collect()).collect();
        let indices: Vec<u32> = (0..4_000).map(|_| rng.below(2_000) as u32).collect();
        let known = Known::fit(&channels, &indices, &[0], 2_000, 1).unwrap();
        assert!((0.99..1.02).contains(&left(&channels, &known.predicted)));
        // Each occurs once.
        let indices: Vec<u32> = (0..4_000).collect();
        let known = Known::fit(&channels, &indices, &[0], 4_000, 1).unwrap();
        assert!((0.99..1.02).contains(&left(&channels, &known.predicted)) && known.saved < 0.01);
    }

    #[test]
    fn indices_begin_anew_with_every_sequence() {
        assert_eq!(aged(&[5, 6, 9, 7], &[0, 2], 1, 8), [None, Some(5), None, None]);
        assert_eq!(aged(&[5, 6, 9, 7], &[0, 2], 0, 8), [Some(5), Some(6), None, Some(7)]);
    }

    #[test]
    fn what_cannot_be_fitted_is_told() {
        let error = |indices: &[u32], vocabulary| {
            let Error::Setting { name, .. } = Known::fit(&[vec![0.0; 3]], indices, &[0], vocabulary, 1).unwrap_err()
            else {
                panic!()
            };
            name
        };
        assert_eq!(error(&[1, 2, 3], 0), "the vocabulary");
        assert_eq!(error(&[1, 2, 3], 1 << 20), "the vocabulary");
        assert_eq!(error(&[1, 2], 9), "the number of side indices");
    }
}
