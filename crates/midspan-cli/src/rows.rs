//! Decoded rows as files: .safetensors, or only the rows of the hidden states.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::files::Output;
use super::walk::Rows;

/// The format of hidden states in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// A .safetensors file.
    Safetensors,
    /// Hidden states alone, frame by frame: E values of four bytes each, IEEE 754 binary32, little-endian, and nothing
    /// else.
    Raw,
}

/// Bytes before the data of a .safetensors file: the length of the header, then the header padded with spaces.
const FRONT: u64 = 512;

/// Rows of one size in a file, written in any order.
struct RowFile {
    file: BufWriter<File>,
    /// Its name in messages.
    name: String,
    /// Offset of row 0.
    base: u64,
    /// Bytes in a row.
    row: u64,
    /// Offset of the next byte to be written.
    at: u64,
    /// Number of rows up to the last one written.
    rows: u64,
    scratch: Vec<u8>,
}

impl RowFile {
    fn new(file: File, name: &str, base: u64, row: usize) -> Self {
        let row = row as u64;
        Self { file: BufWriter::new(file), name: name.into(), base, row, at: 0, rows: 0, scratch: Vec::new() }
    }

    /// Writes rows from `index` on.
    fn write_rows<const N: usize>(&mut self, index: u64, bytes: impl Iterator<Item = [u8; N]>) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        bytes.for_each(|value| scratch.extend_from_slice(&value));
        let outcome = self.write_bytes(index, &scratch);
        self.scratch = scratch;
        outcome.with_context(|| self.name.clone())
    }

    fn write_bytes(&mut self, index: u64, bytes: &[u8]) -> io::Result<()> {
        let place = self.base + index * self.row;
        if place != self.at {
            self.file.seek(SeekFrom::Start(place))?;
        }
        self.file.write_all(bytes)?;
        self.at = place + bytes.len() as u64;
        self.rows = self.rows.max((self.at - self.base) / self.row);
        Ok(())
    }

    fn truncate(&mut self, rows: u64) {
        self.rows = self.rows.min(rows);
    }

    /// The file, cut after the last row and positioned there.
    fn close(self) -> Result<File> {
        let name = self.name;
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error).context(name.clone())?;
        let end = self.base + self.rows * self.row;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).context(name)?;
        Ok(file)
    }
}

fn floats(values: &[f32]) -> impl Iterator<Item = [u8; 4]> {
    values.iter().map(|value| value.to_le_bytes())
}

fn integers(values: &[i16]) -> impl Iterator<Item = [u8; 2]> {
    values.iter().map(|value| value.to_le_bytes())
}

/// A .safetensors file with `hidden` F32 `[T, E]`, `w` I16 `[T, C]` and `y` I16 `[T, E]`. The number of frames is not
/// known before the end. The hidden states are therefore written after room for the header, and `w` and `y` into
/// unnamed files that are appended at the end.
pub(crate) struct SafetensorsRows {
    output: Output,
    hidden: RowFile,
    w: RowFile,
    y: RowFile,
    width: usize,
    channels: usize,
}

impl SafetensorsRows {
    /// Begins the file.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn new(mut output: Output, width: usize, channels: usize) -> Result<Self> {
        let name = output.name().to_string();
        Ok(Self {
            hidden: RowFile::new(output.handle()?, &name, FRONT, 4 * width),
            w: RowFile::new(output.temporary_file()?, &name, 0, 2 * channels),
            y: RowFile::new(output.temporary_file()?, &name, 0, 2 * width),
            output,
            width,
            channels,
        })
    }

    /// Fills in the header for `frames` rows and returns the complete output.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn close(self, frames: u64) -> Result<Output> {
        let Self { output, hidden, w, y, width, channels } = self;
        let name = output.name().to_string();
        let (hidden_end, w_end) = (frames * hidden.row, frames * (hidden.row + w.row));
        let y_end = w_end + frames * y.row;
        let header = format!(
            "{{\"hidden\":{{\"dtype\":\"F32\",\"shape\":[{frames},{width}],\"data_offsets\":[0,{hidden_end}]}},\
             \"w\":{{\"dtype\":\"I16\",\"shape\":[{frames},{channels}],\"data_offsets\":[{hidden_end},{w_end}]}},\
             \"y\":{{\"dtype\":\"I16\",\"shape\":[{frames},{width}],\"data_offsets\":[{w_end},{y_end}]}}}}"
        );
        let room = FRONT as usize - 8;
        let mut file = hidden.close()?;
        let finish = || -> io::Result<()> {
            for rows in [w, y] {
                let mut rows = rows.close().map_err(io::Error::other)?;
                rows.seek(SeekFrom::Start(0))?;
                io::copy(&mut rows, &mut file)?;
            }
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&(room as u64).to_le_bytes())?;
            file.write_all(format!("{header:room$}").as_bytes())
        };
        finish().context(name)?;
        Ok(output)
    }
}

impl Rows for SafetensorsRows {
    fn bytes_per_frame(&self) -> u64 {
        self.hidden.row + self.w.row + self.y.row
    }

    fn w(&mut self, index: u64, w: &[i16]) -> Result<()> {
        self.w.write_rows(index, integers(w))
    }

    fn targets(&mut self, index: u64, y: &[i16], hidden: &[f32]) -> Result<()> {
        self.y.write_rows(index, integers(y))?;
        self.hidden.write_rows(index, floats(hidden))
    }

    fn rewind(&mut self, index: u64) -> Result<()> {
        [&mut self.hidden, &mut self.w, &mut self.y].into_iter().for_each(|rows| rows.truncate(index));
        Ok(())
    }
}

/// The rows of the hidden states in a file.
pub(crate) struct RawFile {
    output: Output,
    hidden: RowFile,
}

impl RawFile {
    /// Begins the file.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn new(mut output: Output, width: usize) -> Result<Self> {
        let name = output.name().to_string();
        Ok(Self { hidden: RowFile::new(output.handle()?, &name, 0, 4 * width), output })
    }

    /// Returns the complete output.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn close(self) -> Result<Output> {
        self.hidden.close()?;
        Ok(self.output)
    }
}

impl Rows for RawFile {
    fn bytes_per_frame(&self) -> u64 {
        self.hidden.row
    }

    fn w(&mut self, _: u64, _: &[i16]) -> Result<()> {
        Ok(())
    }

    fn targets(&mut self, index: u64, _: &[i16], hidden: &[f32]) -> Result<()> {
        self.hidden.write_rows(index, floats(hidden))
    }

    fn rewind(&mut self, index: u64) -> Result<()> {
        self.hidden.truncate(index);
        Ok(())
    }
}

/// The rows of the hidden states in a pipe, in the order of their frames. Rows that come early are kept until their
/// turn.
pub(crate) struct RawPipe {
    output: Output,
    width: usize,
    /// The next frame to be written.
    next: u64,
    /// Frames after it that have come already: at most as many as may wait for their targets.
    early: BTreeMap<u64, Vec<f32>>,
}

impl RawPipe {
    /// Begins with frame 0.
    pub(crate) fn new(output: Output, width: usize) -> Self {
        Self { output, width, next: 0, early: BTreeMap::new() }
    }

    /// Returns the complete output.
    pub(crate) fn close(self) -> Output {
        self.output
    }
}

impl Rows for RawPipe {
    fn bytes_per_frame(&self) -> u64 {
        4 * self.width as u64
    }

    fn w(&mut self, _: u64, _: &[i16]) -> Result<()> {
        Ok(())
    }

    fn targets(&mut self, index: u64, _: &[i16], hidden: &[f32]) -> Result<()> {
        for (index, row) in (index..).zip(hidden.chunks_exact(self.width)) {
            self.early.insert(index, row.to_vec());
        }
        while let Some(row) = self.early.remove(&self.next) {
            for value in row {
                self.output.write_bytes(&value.to_le_bytes())?;
            }
            self.next += 1;
        }
        self.output.pass_on()
    }

    fn rewind(&mut self, index: u64) -> Result<()> {
        self.early.split_off(&index);
        if index < self.next {
            bail!(
                "{}: the stream goes back to frame {index}, and {} frames are written; decode it into a file",
                self.output.name(),
                self.next
            );
        }
        Ok(())
    }
}
