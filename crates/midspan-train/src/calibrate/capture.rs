//! Captured hidden states: the input of a calibration.
//!
//! A capture is one .safetensors file or several (shards), each with
//!
//! | tensor | type, shape | meaning |
//! | --- | --- | --- |
//! | `hidden` | F32, F16 or BF16 \[T, E\] | hidden states at the split, sequence after sequence |
//! | `starts` | I32, U32, I64 or U64 \[S\] | frames at which sequences begin, ascending from 0; absent: one sequence |
//! | `ids` | the same types \[T\] | the token of each frame; may be absent; a calibrated codec then takes them as side indices |
//! | `sensitivity` | F32 \[E, E\] | what an error costs the second half: the mean over frames of g gᵀ, g being the gradient of the log-likelihood at the frame (the Fisher information), or any positive semidefinite weight, no eigenvalue of which is below −0.0001 of the largest; may be absent, then all directions weigh alike. Of several shards the mean counts, by frames |
//!
//! and with the text metadata `host` and `split`, which say what the states are of.
//!
//! A sensitivity is judged by its eigenvalues up to a width of 2,048; above, where that takes long, only by its pairs:
//! |sᵢⱼ| is at most √(sᵢᵢ sⱼⱼ), up to rounding.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use nalgebra::{Cholesky, DMatrix, DVector};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorView};

use super::maps;
use crate::data::Corpus;
use crate::parallel::in_threads;
use crate::rng::Rng;
use crate::{Error, FileFault, Result, gradient};
use midspan::engine::quantiser::to_f32;
use midspan::model::side::VOCABULARY_MAX;
use midspan::wire;
use midspan_host::split::SplitHost;

/// Positions from which the sensitivity of a host is estimated.
const SENSED: usize = 8_192;
/// No more than this is read of a file, bytes.
pub const FILE_MAX: u64 = 1 << 34;
/// The longest header of a .safetensors file in bytes, as in that format's library.
const HEADER_MAX: u64 = 100_000_000;

/// Hidden states with what is known about them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Capture {
    /// E.
    pub width: usize,
    /// `[T, E]`.
    pub hidden: Vec<f32>,
    /// The first frame of each sequence, ascending from 0.
    pub starts: Vec<usize>,
    /// `[T]`: the token of each frame.
    pub ids: Option<Vec<u32>>,
    /// `[E, E]`: the weight of errors.
    pub sensitivity: Option<DMatrix<f64>>,
    /// The host, as the files name it.
    pub host: Option<String>,
    /// The split, as the files name it.
    pub split: Option<String>,
    /// Types that were converted to f32.
    pub converted: Vec<Dtype>,
}

impl Capture {
    /// A capture of hidden states, `[T, E]`, of one sequence.
    ///
    /// # Errors
    /// [`Error::Setting`] if the values are not whole frames, or one is not finite.
    pub fn new(hidden: Vec<f32>, width: usize) -> Result<Self> {
        if width == 0 || hidden.is_empty() || !hidden.len().is_multiple_of(width) {
            return Err(Error::setting("the number of values", hidden.len(), format!("whole frames of {width}")));
        }
        if let Some(at) = hidden.iter().position(|x| !x.is_finite()) {
            let found = format_args!("{} in frame {}, element {}", hidden[at], at / width, at % width);
            return Err(Error::setting("a hidden state", found, "finite values"));
        }
        Ok(Self { width, hidden, starts: vec![0], ..Self::default() })
    }

    /// The hidden states of a host on a text: sequences of the host's context length. The sensitivity is the Fisher
    /// information of the predictions, from windows of the text that `seed` chooses.
    ///
    /// # Errors
    /// [`Error::ShortCorpus`] for a text shorter than two tokens, [`Error::Independent`] if the predictions do not depend
    /// on the hidden states, [`Error::NoGradient`] if the host's operations do not tell how, [`Error::Tensor`] if a
    /// computation fails.
    pub fn from_host(host: &dyn SplitHost, ids: &[u32], seed: u64, threads: usize) -> Result<Self> {
        let context = host.context();
        let capture = Self::from_host_alone(host, ids, threads)?;
        let corpus = Corpus::from_ids(ids.to_vec());
        let mut rng = Rng::new(seed);
        let len = context.min(ids.len().saturating_sub(1)).max(1);
        let batch = corpus.batch(SENSED.div_ceil(len), len, &mut rng)?;
        gradient::check(host, &batch, &mut rng)?;
        let sensitivity = maps::information(host, &batch, &mut rng)?;
        Ok(Self { sensitivity: Some(sensitivity), ..capture })
    }

    /// The same without a sensitivity.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no token, [`Error::Tensor`] if a computation fails.
    pub fn from_host_alone(host: &dyn SplitHost, ids: &[u32], threads: usize) -> Result<Self> {
        let context = host.context();
        let windows: Vec<&[u32]> = ids.chunks(context).collect();
        let states = in_threads(&windows, threads, |ids| {
            let hidden = host.head(&Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu)?)?; // [1, T, E]
            Ok(hidden.flatten_all()?.to_vec1::<f32>()?)
        })?;
        let capture = Self::new(states.concat(), host.width())?;
        let starts = (0..ids.len()).step_by(context).collect();
        Ok(Self { ids: Some(ids.to_vec()), starts, ..capture })
    }

    /// One more than the largest token; those that no codec model can take as side indices are left out. 0 without tokens.
    pub fn vocabulary(&self) -> usize {
        let ids = self.ids.iter().flatten().map(|id| *id as usize);
        ids.filter(|id| *id < VOCABULARY_MAX).max().map_or(0, |id| id + 1)
    }

    /// Frames whose tokens no codec model can take as side indices.
    pub fn beyond(&self) -> usize {
        self.ids.iter().flatten().filter(|id| **id as usize >= VOCABULARY_MAX).count()
    }

    /// T.
    pub fn frames(&self) -> usize {
        self.hidden.len().checked_div(self.width).unwrap_or(0)
    }

    /// The hidden states of each sequence, `[T, E]` each.
    pub fn sequences(&self) -> impl Iterator<Item = &[f32]> + '_ {
        let ends = self.starts.iter().skip(1).copied().chain([self.frames()]);
        self.starts.iter().zip(ends).map(|(start, end)| &self.hidden[start * self.width..end * self.width])
    }

    /// The hidden states of each sequence, with the tokens of its frames if they are known.
    pub fn sequences_with_ids(&self) -> impl Iterator<Item = (&[f32], Option<&[u32]>)> + '_ {
        let ends = self.starts.iter().skip(1).copied().chain([self.frames()]);
        let ids = move |(start, end): (&usize, usize)| self.ids.as_ref().and_then(|ids| ids.get(*start..end));
        self.sequences().zip(self.starts.iter().zip(ends).map(ids))
    }

    /// Reads a capture's files.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::File`] if one does not hold what it should or does not fit the
    /// first, [`Error::Setting`] if there is none.
    pub fn load(paths: &[PathBuf]) -> Result<Self> {
        let mut whole: Option<Self> = None;
        for path in paths {
            let shard = Self::load_one(path)?;
            match &mut whole {
                None => whole = Some(shard),
                Some(whole) => whole.append(shard, path)?,
            }
        }
        let whole = whole.ok_or_else(|| Error::setting("the number of captured files", 0, "at least 1"))?;
        if whole.sensitivity.as_ref().is_some_and(|weight| weight.nrows() <= JUDGED && !is_semidefinite(weight)) {
            let of = if paths.len() > 1 { " in the mean of all files" } else { "" };
            let fault = FileFault::NoCapture(format!("\"sensitivity\" has a negative eigenvalue{of}: {NO_WEIGHT}"));
            return Err(Error::File { path: paths[0].clone(), line: None, fault });
        }
        Ok(whole)
    }

    fn load_one(path: &Path) -> Result<Self> {
        let wrong = |what: String| Error::File { path: path.into(), line: None, fault: FileFault::NoCapture(what) };
        let bytes = read(path)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong(error.to_string()))?;
        let text = |key: &str| metadata.metadata().as_ref().and_then(|texts| texts.get(key).cloned());
        let named = |name: &str| tensors.tensor(name).ok();
        let hidden = named("hidden").ok_or_else(|| wrong("no tensor \"hidden\"".into()))?;
        let &[frames, width] = hidden.shape() else {
            return Err(wrong(format!("\"hidden\" has the shape {:?}, not [T, E]", hidden.shape())));
        };
        if frames == 0 || width == 0 {
            return Err(wrong(format!("\"hidden\" has the shape [{frames}, {width}]: no frame")));
        }
        if width > super::WIDTH_MAX {
            return Err(wrong(format!("hidden states of {width} values, more than {}", super::WIDTH_MAX)));
        }
        let (values, converted) =
            floats(&hidden).map_err(|dtype| wrong(format!("\"hidden\" is {dtype:?}, not F32, F16 or BF16")))?;
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            return Err(wrong(format!("{} in frame {}, element {}", values[at], at / width, at % width)));
        }
        let whole = |name: &str| -> Result<Option<Vec<u64>>> {
            let Some(tensor) = named(name) else { return Ok(None) };
            if tensor.shape().len() != 1 {
                return Err(wrong(format!("{name:?} has the shape {:?}, not one dimension", tensor.shape())));
            }
            let values = integers(&tensor);
            values.map(Some).ok_or_else(|| wrong(not_integers(name, &tensor)))
        };
        let starts = whole("starts")?.unwrap_or_else(|| vec![0]);
        let ascends = starts.first() == Some(&0) && starts.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascends || starts.last().is_none_or(|last| *last >= frames as u64) {
            return Err(wrong(format!("\"starts\" has to ascend from 0 to below {frames}, the number of frames")));
        }
        let ids = whole("ids")?;
        if let Some(found) = ids.as_ref().map(Vec::len).filter(|found| *found != frames) {
            return Err(wrong(format!("\"ids\" has {found} entries for {frames} frames")));
        }
        let ids = ids.map(|ids| ids.into_iter().map(u32::try_from).collect::<std::result::Result<Vec<_>, _>>());
        let ids = ids.transpose().map_err(|_| wrong("\"ids\" has one of more than 32 bits".into()))?;
        let sensitivity = match named("sensitivity") {
            None => None,
            Some(tensor) if tensor.dtype() == Dtype::F32 && tensor.shape() == [width, width] => {
                let (values, _) = floats(&tensor).map_err(|dtype| wrong(format!("\"sensitivity\" is {dtype:?}")))?;
                Some(weight(&values, width).map_err(|what| wrong(format!("\"sensitivity\" {what}")))?)
            }
            Some(tensor) => {
                let found = format_args!("{:?} {:?}", tensor.dtype(), tensor.shape());
                return Err(wrong(format!("\"sensitivity\" is {found}, not F32 [{width}, {width}]")));
            }
        };
        Ok(Self {
            width,
            hidden: values,
            starts: starts.into_iter().map(|start| start as usize).collect(),
            ids,
            sensitivity,
            host: text("host"),
            split: text("split"),
            converted: converted.into_iter().collect(),
        })
    }

    /// Appends a shard.
    fn append(&mut self, shard: Self, path: &Path) -> Result<()> {
        let refused =
            |what: String| Err(Error::File { path: path.into(), line: None, fault: FileFault::NoCapture(what) });
        if shard.width != self.width {
            return refused(format!("hidden states of {} values, of {} in the first file", shard.width, self.width));
        }
        if shard.ids.is_some() != self.ids.is_some() || shard.sensitivity.is_some() != self.sensitivity.is_some() {
            return refused("\"ids\" and \"sensitivity\" have to be in every file or in none".into());
        }
        if (&shard.host, &shard.split) != (&self.host, &self.split) {
            return refused("another host or split than in the first file".into());
        }
        let (mine, theirs) = (self.frames() as f64, shard.frames() as f64);
        if let (Some(own), Some(other)) = (&mut self.sensitivity, &shard.sensitivity) {
            *own = (&*own * mine + other * theirs) / (mine + theirs);
        }
        let frames = self.frames();
        self.starts.extend(shard.starts.iter().map(|start| start + frames));
        self.hidden.extend(shard.hidden);
        if let (Some(own), Some(other)) = (&mut self.ids, shard.ids) {
            own.extend(other);
        }
        for dtype in shard.converted {
            if !self.converted.contains(&dtype) {
                self.converted.push(dtype);
            }
        }
        Ok(())
    }

    /// Splits off the last sequences, about one part in `parts` of the frames, and at least one frame if there are two:
    /// a sequence that is longer than that is cut. Returns the rest and what was split off.
    #[must_use]
    pub fn hold_out(mut self, parts: usize) -> (Self, Self) {
        let frames = self.frames();
        let wanted = frames - (frames / parts.max(1)).clamp(usize::from(frames > 1), frames);
        // The start nearest to the wanted frame, if it is near.
        let slack = frames / (2 * parts.max(1));
        let near = self.starts.iter().copied().filter(|start| *start > 0 && start.abs_diff(wanted) <= slack);
        let at = near.min_by_key(|start| start.abs_diff(wanted)).unwrap_or(wanted);
        let mut held_out = Self {
            width: self.width,
            hidden: self.hidden.split_off(at * self.width),
            ids: self.ids.as_mut().map(|ids| ids.split_off(at)),
            starts: Vec::new(),
            sensitivity: self.sensitivity.clone(),
            host: self.host.clone(),
            split: self.split.clone(),
            converted: self.converted.clone(),
        };
        held_out.starts = self.starts.iter().filter(|start| **start > at).map(|start| start - at).collect();
        held_out.starts.insert(0, 0);
        self.starts.retain(|start| *start < at);
        (self, held_out)
    }
}

/// The non-negative integers of a tensor `[T]` or `[1, T]` in a .safetensors file of any size, of which no more is kept.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::File`] if it has no such tensor.
pub fn load_integers(path: &Path, name: &str) -> Result<Vec<u64>> {
    let io = |source| Error::Io { path: path.into(), source };
    let wrong = |what: String| Error::File { path: path.into(), line: None, fault: FileFault::NoCapture(what) };
    let mut file = File::open(path).map_err(io)?;
    let mut length = [0; 8];
    let mut header = Vec::new();
    let begins = file.read_exact(&mut length).is_ok() && u64::from_le_bytes(length) <= HEADER_MAX;
    if begins {
        file.by_ref().take(u64::from_le_bytes(length)).read_to_end(&mut header).map_err(io)?;
    }
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| wrong(format!("no .safetensors file: {error}")))?;
    let info = metadata.info(name).ok_or_else(|| wrong(format!("no tensor {name:?}")))?;
    let (start, end) = info.data_offsets;
    // A pipe is read up to there.
    if !i64::try_from(start).is_ok_and(|start| file.seek(SeekFrom::Current(start)).is_ok()) {
        std::io::copy(&mut file.by_ref().take(start as u64), &mut std::io::sink()).map_err(io)?;
    }
    let mut data = Vec::new();
    file.take(end.saturating_sub(start) as u64).read_to_end(&mut data).map_err(io)?;
    let tensor = TensorView::new(info.dtype, info.shape.clone(), &data)
        .map_err(|_| wrong("the file ends before its header says".into()))?;
    match (tensor.shape(), integers(&tensor)) {
        ([_] | [1, _], Some(values)) => Ok(values),
        ([_] | [1, _], None) => Err(wrong(not_integers(name, &tensor))),
        (shape, _) => Err(wrong(format!("{name:?} has the shape {shape:?}, not [T] or [1, T]"))),
    }
}

/// The bytes of a .safetensors file. What does not begin as one is not read to its end, which it may not have.
fn read(path: &Path) -> Result<Vec<u8>> {
    let io = |source| Error::Io { path: path.into(), source };
    let mut file = File::open(path).map_err(io)?.take(FILE_MAX);
    let mut bytes = Vec::new();
    file.by_ref().take(9).read_to_end(&mut bytes).map_err(io)?;
    if bytes.get(8) != Some(&b'{') {
        let fault = FileFault::NoCapture("no .safetensors file".into());
        return Err(Error::File { path: path.into(), line: None, fault });
    }
    file.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// The widest sensitivity that is judged by its eigenvalues.
const JUDGED: usize = 2_048;
/// How far below 0 an eigenvalue of a sensitivity may be, as a part of the largest: rounding puts some there.
const ROUNDING: f64 = 1e-4;
/// What an indefinite sensitivity is not.
const NO_WEIGHT: &str = "no mean of g gᵀ has that";

/// Whether no eigenvalue of a symmetric matrix is further below 0 than rounding puts it.
fn is_semidefinite(matrix: &DMatrix<f64>) -> bool {
    let mut rng = Rng::new(1);
    let mut vector = DVector::from_fn(matrix.nrows(), |_, _| f64::from(rng.normal()));
    let mut largest = 0.0;
    // Its length goes towards the largest eigenvalue's.
    for _ in 0..30 {
        vector = matrix * vector.normalize();
        largest = vector.norm();
    }
    let shift = DMatrix::identity(matrix.nrows(), matrix.nrows()) * (ROUNDING * largest);
    Cholesky::new(matrix + shift).is_some()
}

/// A symmetric weight from rows, `[E, E]`. What rounding makes negative of its eigenvalues later counts as 0.
fn weight(values: &[f32], width: usize) -> std::result::Result<DMatrix<f64>, &'static str> {
    if values.iter().any(|value| !value.is_finite()) {
        return Err("holds a value that is not finite");
    }
    let matrix = DMatrix::from_iterator(width, width, values.iter().map(|value| f64::from(*value)));
    if (0..width).any(|at| matrix[(at, at)] < 0.0) || matrix.trace() <= 0.0 {
        return Err("has a diagonal that is negative somewhere, or 0 everywhere");
    }
    if (&matrix - matrix.transpose()).abs().max() > 1e-3 * matrix.abs().max() {
        return Err("is not symmetric");
    }
    let least = ROUNDING * matrix.diagonal().max();
    let bound = |a: usize, b: usize| 1.01 * (matrix[(a, a)] * matrix[(b, b)]).sqrt() + least;
    if (0..width).any(|a| (0..a).any(|b| matrix[(b, a)].abs() > bound(a, b))) {
        return Err("has an entry that its diagonal is too small for: no mean of g gᵀ has that");
    }
    Ok((&matrix + matrix.transpose()) * 0.5)
}

/// Values as f32, and their type if they were converted.
fn floats(tensor: &TensorView<'_>) -> std::result::Result<(Vec<f32>, Option<Dtype>), Dtype> {
    let dtype = match tensor.dtype() {
        Dtype::F32 => wire::Dtype::F32,
        Dtype::F16 => wire::Dtype::F16,
        Dtype::BF16 => wire::Dtype::Bf16,
        other => return Err(other),
    };
    Ok((to_f32(dtype, tensor.data()), (tensor.dtype() != Dtype::F32).then_some(tensor.dtype())))
}

/// Non-negative integers; `None` for another type, or a negative one.
/// Why a tensor holds no such integers.
fn not_integers(name: &str, tensor: &TensorView<'_>) -> String {
    match tensor.dtype() {
        Dtype::I32 | Dtype::I64 => format!("{name:?} has a negative value"),
        other => format!("{name:?} is {other:?}, not I32, U32, I64 or U64"),
    }
}

fn integers(tensor: &TensorView<'_>) -> Option<Vec<u64>> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::I32 => {
            data.chunks_exact(4).map(|b| u64::try_from(i32::from_le_bytes(b.try_into().ok()?)).ok()).collect()
        }
        Dtype::U32 => data.chunks_exact(4).map(|b| Some(u32::from_le_bytes(b.try_into().ok()?).into())).collect(),
        Dtype::I64 => {
            data.chunks_exact(8).map(|b| u64::try_from(i64::from_le_bytes(b.try_into().ok()?)).ok()).collect()
        }
        Dtype::U64 => data.chunks_exact(8).map(|b| Some(u64::from_le_bytes(b.try_into().ok()?))).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::serialize;
    use std::collections::HashMap;

    /// Name, type, shape and data of a tensor.
    type Part<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("midspan-capture-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A file with these tensors and this host.
        fn file(&self, name: &str, tensors: &[Part<'_>], host: &str) -> PathBuf {
            let views = tensors
                .iter()
                .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap()));
            let texts = HashMap::from([("host".to_string(), host.to_string()), ("split".into(), "3".into())]);
            let path = self.0.join(name);
            std::fs::write(&path, serialize(views, Some(texts)).unwrap()).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn i32s(values: &[i32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn hidden(values: &[f32]) -> (&'static str, Dtype, Vec<usize>, Vec<u8>) {
        ("hidden", Dtype::F32, vec![values.len() / 2, 2], f32s(values))
    }

    #[test]
    fn shards_follow_one_another() {
        let folder = Folder::new("shards");
        let (name, dtype, shape, data) = hidden(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let weight = |a: f32| ("sensitivity", Dtype::F32, &[2, 2][..], f32s(&[a, 0.0, 0.0, 1.0]));
        let one = folder.file(
            "one",
            &[
                (name, dtype, &shape, data),
                ("starts", Dtype::I32, &[2], i32s(&[0, 2])),
                ("ids", Dtype::I64, &[3], [7_i64, 8, 9].iter().flat_map(|id| id.to_le_bytes()).collect()),
                weight(1.0),
            ],
            "a",
        );
        // Half-precision hidden states are converted: 1.5 and −2.
        let halves = vec![0x00, 0x3E, 0x00, 0xC0];
        let two = folder.file(
            "two",
            &[("hidden", Dtype::F16, &[1, 2], halves), ("ids", Dtype::U32, &[1], i32s(&[5])), weight(5.0)],
            "a",
        );
        let capture = Capture::load(&[one, two]).unwrap();
        assert_eq!((capture.frames(), capture.width, &capture.starts[..]), (4, 2, &[0, 2, 3][..]));
        assert_eq!(capture.hidden, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.5, -2.0]);
        assert_eq!(capture.ids.as_deref(), Some(&[7, 8, 9, 5][..]));
        assert_eq!((capture.host.as_deref(), capture.split.as_deref()), (Some("a"), Some("3")));
        assert_eq!(capture.converted, [Dtype::F16]);
        // The mean by frames: (3 · 1 + 1 · 5) / 4.
        assert_eq!(capture.sensitivity.as_ref().map(|weight| weight[(0, 0)]), Some(2.0));
        assert_eq!(capture.sequences().map(<[f32]>::len).collect::<Vec<_>>(), [4, 2, 2]);
        let (kept, held_out) = capture.hold_out(4);
        assert_eq!(
            (kept.frames(), &kept.starts[..], held_out.frames(), &held_out.starts[..]),
            (3, &[0, 2][..], 1, &[0][..])
        );
        assert_eq!((kept.ids, held_out.ids), (Some(vec![7, 8, 9]), Some(vec![5])));
    }

    #[test]
    fn rounding_alone_makes_eigenvalues_negative() {
        // 1 + 2 x and 1 − x, twice, are the eigenvalues.
        let of = |x: f64| is_semidefinite(&DMatrix::from_fn(3, 3, |a, b| if a == b { 1.0 } else { x }));
        assert!(of(0.9) && of(1.0) && of(1.0 + 2e-4) && of(-0.5) && of(-0.5 - 5e-5));
        assert!(!of(1.0 + 4e-4) && !of(-0.5 - 1e-4) && !of(-0.9) && !of(5.0));
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let folder = Folder::new("wrong");
        let good = hidden(&[1.0, 2.0, 3.0, 4.0]);
        let good = (good.0, good.1, &good.2[..], good.3);
        let refused = |paths: &[PathBuf]| -> String {
            let error = Capture::load(paths).unwrap_err();
            let Error::File { fault: FileFault::NoCapture(why), .. } = error else { panic!("{error:?}") };
            why
        };
        let file = |name: &str, tensors: &[Part<'_>]| folder.file(name, tensors, "a");
        let cases: [(&str, Vec<Part<'_>>, &str); 13] = [
            ("none", vec![("states", Dtype::F32, &[1, 2], f32s(&[1.0, 2.0]))], "no tensor \"hidden\""),
            ("flat", vec![("hidden", Dtype::F32, &[2], f32s(&[1.0, 2.0]))], "\"hidden\" has the shape [2], not [T, E]"),
            ("empty", vec![("hidden", Dtype::F32, &[0, 2], Vec::new())], "\"hidden\" has the shape [0, 2]: no frame"),
            ("type", vec![("hidden", Dtype::I32, &[1, 2], i32s(&[1, 2]))], "\"hidden\" is I32, not F32, F16 or BF16"),
            (
                "nan",
                vec![("hidden", Dtype::F32, &[2, 2], f32s(&[1.0, 2.0, 3.0, f32::NAN]))],
                "NaN in frame 1, element 1",
            ),
            (
                "starts",
                vec![good.clone(), ("starts", Dtype::I32, &[2], i32s(&[0, 2]))],
                "\"starts\" has to ascend from 0 to below 2, the number of frames",
            ),
            (
                "first",
                vec![good.clone(), ("starts", Dtype::I32, &[1], i32s(&[1]))],
                "\"starts\" has to ascend from 0 to below 2, the number of frames",
            ),
            (
                "ids",
                vec![good.clone(), ("ids", Dtype::I32, &[3], i32s(&[1, 2, 3]))],
                "\"ids\" has 3 entries for 2 frames",
            ),
            ("negative", vec![good.clone(), ("ids", Dtype::I32, &[2], i32s(&[1, -2]))], "\"ids\" has a negative value"),
            (
                "square",
                vec![good.clone(), ("sensitivity", Dtype::F32, &[1, 2], f32s(&[1.0, 2.0]))],
                "\"sensitivity\" is F32 [1, 2], not F32 [2, 2]",
            ),
            (
                "skew",
                vec![good.clone(), ("sensitivity", Dtype::F32, &[2, 2], f32s(&[1.0, 2.0, -2.0, 1.0]))],
                "\"sensitivity\" is not symmetric",
            ),
            (
                "pair",
                vec![good.clone(), ("sensitivity", Dtype::F32, &[2, 2], f32s(&[1.0, 5.0, 5.0, 1.0]))],
                "\"sensitivity\" has an entry that its diagonal is too small for: no mean of g gᵀ has that",
            ),
            (
                "zero",
                vec![good.clone(), ("sensitivity", Dtype::F32, &[2, 2], f32s(&[0.0; 4]))],
                "\"sensitivity\" has a diagonal that is negative somewhere, or 0 everywhere",
            ),
        ];
        for (name, tensors, expected) in cases {
            assert_eq!(refused(&[file(name, &tensors)]), expected, "{name}");
        }
        for (bytes, expected) in [(&b"none"[..], "no .safetensors file"), (&[0; 100], "no .safetensors file")] {
            let garbage = folder.0.join("garbage");
            std::fs::write(&garbage, bytes).unwrap();
            assert_eq!(refused(&[garbage]), expected);
        }
        #[cfg(unix)]
        assert_eq!(refused(&["/dev/zero".into()]), "no .safetensors file");
        let first = file("good", std::slice::from_ref(&good));
        let wide = file("wide", &[("hidden", Dtype::F32, &[1, 3], f32s(&[1.0, 2.0, 3.0]))]);
        assert_eq!(refused(&[first.clone(), wide]), "hidden states of 3 values, of 2 in the first file");
        let with_ids = file("with-ids", &[good.clone(), ("ids", Dtype::I32, &[2], i32s(&[1, 2]))]);
        assert_eq!(
            refused(&[first.clone(), with_ids]),
            "\"ids\" and \"sensitivity\" have to be in every file or in none"
        );
        let other = folder.file("other", &[good], "b");
        assert_eq!(refused(&[first, other]), "another host or split than in the first file");
        assert!(matches!(Capture::load(&[]), Err(Error::Setting { .. })));
        assert!(matches!(Capture::load(&[folder.0.join("missing")]), Err(Error::Io { .. })));
    }
}
