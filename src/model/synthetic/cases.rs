//! Networks with input frames, to compare one implementation with another.

use super::{Random, Style, SyntheticShape, few_inputs, g_y, h, inputs, largest_sums};
use crate::model::NetworkParameters;

/// A network, and frames for it.
#[derive(Clone, Debug)]
pub struct Case {
    /// A description for people.
    pub name: String,
    /// The network.
    pub parameters: NetworkParameters,
    /// \[T, d_0\].
    pub inputs: Vec<i16>,
    /// Frames to run together.
    pub batch: usize,
    /// The frames' quality.
    pub quality: usize,
}

impl Case {
    /// A network of a random shape, h or g_y, of any style, with up to 90 frames.
    ///
    /// Seeds that follow each other go through every style of both networks.
    #[must_use]
    pub fn random(seed: u64) -> Case {
        let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let shape = SyntheticShape::random(&mut random);
        let mut within = |low: i32, high: i32| random.within(low, high) as usize;
        let (frames, batch, quality) = (within(1, 90), within(1, 40), within(0, 1));
        let reach = [0, 3, 60, 2_000, i16::MAX][within(0, 4)];
        let style = Style::ALL[(seed % Style::ALL.len() as u64) as usize];
        let (kind, parameters) = match seed % 2 {
            0 => ("g_y", g_y(&shape, style, seed)),
            _ => ("h", h(&shape, style, seed)),
        };
        let inputs = inputs(parameters.inputs(), frames, reach, seed ^ 1);
        let name = format!("network {seed} ({kind}, {style:?}, {shape:?}, inputs of ±{reach}, batches of {batch})");
        Case { name, parameters, inputs, batch, quality }
    }

    /// Every style at extreme inputs: with blocks, without, and without where each row reads few inputs. Windows of one
    /// frame, windows longer than a batch, and windows whose weighted sums exceed 32 bits, in rings that wrap; wide layers and heads of 512 elements with all
    /// sums at their bounds.
    #[must_use]
    pub fn extremes() -> Vec<Case> {
        let mut all = Vec::new();
        let shape = SyntheticShape { window: 5, ..SyntheticShape::tiny() };
        for (what, shape) in [("two blocks", shape), ("no blocks", SyntheticShape::blockless())] {
            for style in Style::ALL {
                for value in [0, 1, -1, i16::MAX, -i16::MAX, i16::MIN] {
                    let parameters = g_y(&shape, style, 11);
                    let inputs = vec![value; parameters.inputs() * 36];
                    let name = format!("{what}, {style:?}, inputs of {value}");
                    all.push(Case { name, parameters, inputs, batch: 17, quality: 0 });
                }
            }
        }
        for style in Style::ALL {
            for (kind, parameters, quality) in [("g_y", few_inputs(style, false), 1), ("h", few_inputs(style, true), 0)]
            {
                let width = parameters.inputs();
                for (inputs, batch) in [(inputs(width, 40, i16::MAX, 5), 33), (vec![i16::MIN; width], 1)] {
                    let name = format!("{kind} without blocks, few inputs a row, {style:?}, batches of {batch}");
                    all.push(Case { name, parameters: parameters.clone(), inputs, batch, quality });
                }
            }
        }
        for (window, frames, batch) in [(1, 9, 4), (129, 400, 150), (300, 700, 333), (700, 1_700, 64)] {
            let parameters = largest_sums(window);
            let inputs = inputs(parameters.inputs(), frames, 60, 6);
            let name = format!("the largest sums of {window} frames, batches of {batch}");
            all.push(Case { name, parameters, inputs, batch, quality: 1 });
        }
        for style in [Style::Bounds, Style::Anything, Style::SmallestShift] {
            let parameters = g_y(&SyntheticShape::wide(), style, 9);
            for (inputs, batch) in [(inputs(512, 9, i16::MAX, 3), 9), (vec![i16::MAX; 512 * 24], 20)] {
                let name = format!("wide, {style:?}, batches of {batch}");
                all.push(Case { name, parameters: parameters.clone(), inputs, batch, quality: 0 });
            }
        }
        all
    }
}
