//! Learns a codec for your own model, whose weights do not change. Cut the model in two with [`SplitHost`], provide
//! text as token ids, and get a frozen codec, measured against the predictions of the uncut model.
//!
//! `cargo run --release -p midspan-examples --example fit_host`

use candle_core::{Device, Result, Tensor};
use midspan::codec::{Codec, EncoderConfig};
use midspan::model::synthetic::Random;
use midspan::wire::Identity;
use midspan_host::split::SplitHost;
use midspan_train::codec::{Config, side};
use midspan_train::data::{Corpus, HeldOut};
use midspan_train::fit::{Learner, Start};
use midspan_train::measure::{evaluate_one, frozen::FrozenLink};
use midspan_train::optim::Settings;
use midspan_train::runner::Plan;
use midspan_train::trade::Trade;

const VOCAB: usize = 64;
const WIDTH: usize = 32;

/// A stand-in for your model: embeddings of the current and the previous token, and two layers.
struct Host {
    embedding: Tensor, // [VOCAB, WIDTH]
    up: Tensor,        // [WIDTH, 4 * WIDTH]
    down: Tensor,      // [4 * WIDTH, VOCAB]
}

impl SplitHost for Host {
    fn width(&self) -> usize {
        WIDTH
    }

    fn context(&self) -> usize {
        64
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn head(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, time) = tokens.dims2()?;
        let each = self.embedding.index_select(&tokens.flatten_all()?, 0)?.reshape((batch, time, WIDTH))?;
        let before = each.narrow(1, 0, time - 1)?.pad_with_zeros(1, 1, 0)?;
        each + (before * 0.5)?
    }

    // Learning needs gradients through this half, so use only operations that candle can differentiate.
    fn tail(&self, hidden: &Tensor, last: usize) -> Result<Tensor> {
        let hidden = hidden.narrow(1, hidden.dim(1)? - last, last)?.contiguous()?;
        hidden.broadcast_matmul(&self.up)?.relu()?.broadcast_matmul(&self.down)
    }
}

/// Text of the kind that the host will see.
fn text(len: usize) -> Vec<u32> {
    let mut random = Random::new(1);
    let mut token = 0;
    let next = |_| {
        token = (5 * token + 1 + random.within(0, 3) as u32) % VOCAB as u32;
        token
    };
    (0..len).map(next).collect()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let weights = |rows: usize, columns: usize| Tensor::randn(0.0_f32, 1.0, (rows, columns), &Device::Cpu);
    let host = Host {
        embedding: weights(VOCAB, WIDTH)?,
        up: (weights(WIDTH, 4 * WIDTH)? / (WIDTH as f64).sqrt())?,
        down: (weights(4 * WIDTH, VOCAB)? / (WIDTH as f64).sqrt())?,
    };
    let mut ids = text(20_000);
    let held_out = HeldOut { ids: ids.split_off(18_000), bytes: 2_000 };
    let corpus = Corpus::from_ids(ids);

    let out = std::env::temp_dir().join(format!("midspan-fit-host-{}", std::process::id()));
    let steps: u64 = std::env::args().nth(1).map_or(Ok(300), |steps| steps.parse())?;
    let learner = Learner {
        host: &host,
        identity: "an example, split in the middle".into(),
        shape: Config::default()
            .h_widths(vec![WIDTH, 16, 4]) // h: from the hidden state to W
            .channels(4) // of W
            .g_y_widths(vec![4, 16, WIDTH]) // g_y: back to what Y will be like
            .window(64)
            .side(Some(side::Shape { ages: 2, vocabulary: VOCAB, width: WIDTH + 4 })), // what tokens tell
        start: Start::Calibration,
        map: None, // full linear maps, up to a width of 1,024
        rate_weight: 0.08,
        trade: Trade { lambda: 0.0005, ramp: steps / 10 }, // nats a bit: finer steps for less
        settings: Settings::default(),
        plan: Plan::new(out.clone(), steps, host.context()),
    };
    let Some(fitted) = learner.learn(&corpus, &held_out, &())? else { return Ok(()) };
    std::fs::remove_dir_all(&out)?;

    // The model file for both machines, and the codec's figures.
    let bytes = fitted.model.to_bytes_for(&learner.identity);
    let codec = std::sync::Arc::new(Codec::from_bytes(&bytes, 1 << 30)?);
    let link = FrozenLink::new(codec, &EncoderConfig::new(Identity::none()))?;
    let figures = evaluate_one(&host, &link, &held_out, 1)?;
    println!("a codec of {} bytes for hidden states of {} bits in f16:", bytes.len(), 16 * WIDTH);
    println!(
        "{:.1} bits a token, {:.1} % of the likeliest tokens the same",
        figures["bits"],
        100.0 * figures["agreement"]
    );
    assert!(figures["bits"] < (16 * WIDTH) as f64 && figures["agreement"] > 0.5);
    Ok(())
}
