//! The digest of a host's weights in files (spec 4.7).

use std::io::{self, Read, Seek, SeekFrom};

use crate::error::Error;
use crate::model::HostDigest;
use crate::model::header::{Header, LENGTH_BYTES};
use crate::number::{to_u64, to_usize};

/// Bytes per read.
const BLOCK: usize = 1 << 16;

/// The digest of a host's weights in one or several safetensors files, to state or to expect in a stream header
/// ([`crate::codec::EncoderConfig::host_digest`], [`crate::codec::DecoderConfig::host_digest`]). It does not depend on
/// how the weights are spread over the files, on their order in a file or on metadata.
///
/// The files may be larger than memory: only their headers (at most 16 MiB each) and 64 KiB of data are in memory.
///
/// # Errors
/// Errors of reading; [`io::ErrorKind::InvalidData`] with an [`Error`] inside if a file is not a safetensors file, if
/// two tensors have the same name, or if the host has no weights.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// let mut parts = [
///     std::fs::File::open("model-00001-of-00002.safetensors")?,
///     std::fs::File::open("model-00002-of-00002.safetensors")?,
/// ];
/// let digest = midspan::adapter::host_digest(&mut parts)?;
/// # Ok(())
/// # }
/// ```
pub fn host_digest(files: &mut [impl Read + Seek]) -> io::Result<[u8; 32]> {
    let mut headers = Vec::with_capacity(files.len());
    for file in &mut *files {
        headers.push(read_header(file)?);
    }
    let mut tensors = Vec::new();
    for (number, (header, base, length)) in headers.iter().enumerate() {
        let own = header.tensors(*length).map_err(invalid)?;
        tensors.extend(own.iter().map(|entry| (number, *base, entry)));
    }
    tensors.sort_by_key(|(_, _, entry)| &entry.name);
    let mut digest = HostDigest::new();
    let mut block = vec![0; BLOCK];
    for (number, base, entry) in tensors {
        digest.tensor(&entry.name, &entry.dtype, &entry.shape).map_err(invalid)?;
        let Some(file) = files.get_mut(number) else { continue };
        let (start, end) = entry.offsets;
        file.seek(SeekFrom::Start(base.saturating_add(start)))?;
        let mut left = end.saturating_sub(start);
        while left > 0 {
            let count = to_usize(left).min(block.len());
            let Some(part) = block.get_mut(..count) else { break };
            file.read_exact(part)?;
            digest.data(part).map_err(invalid)?;
            left = left.saturating_sub(to_u64(count));
        }
    }
    digest.finish().map_err(invalid)
}

/// A file's header, the offset of its data, and the number of data bytes.
fn read_header(file: &mut (impl Read + Seek)) -> io::Result<(Header, u64, u64)> {
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut length = [0; LENGTH_BYTES];
    file.read_exact(&mut length)?;
    let length = Header::length(length).map_err(invalid)?;
    let mut text = Vec::new();
    file.by_ref().take(length).read_to_end(&mut text)?;
    if text.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let base = length.saturating_add(to_u64(LENGTH_BYTES));
    Ok((Header::parse(&text).map_err(invalid)?, base, size.saturating_sub(base)))
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use crate::error::ErrorKind;
    use crate::model::{HostTensor, host_digest_of_file};

    /// Data longer than a block.
    fn data() -> Vec<u8> {
        (0..3 * BLOCK + 20).map(|i| ((i * i) >> 3) as u8).collect()
    }

    fn file(names: &[&str]) -> Vec<u8> {
        let data = data();
        let view = |name: &str| {
            // A tensor with a longer name is shorter.
            let bytes = &data[..data.len() / (1 + name.len()) / 4 * 4];
            TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).unwrap()
        };
        safetensors::serialize(names.iter().map(|name| (*name, view(name))), None).unwrap()
    }

    #[test]
    fn files_of_any_size_are_read_in_pieces() {
        let whole = file(&["layers.10.q", "layers.9.q", "b", "layers.1.q.scale"]);
        let digest = host_digest_of_file(&whole).unwrap();
        assert_eq!(host_digest(&mut [Cursor::new(&whole)]).unwrap(), digest);
        let parts = [file(&["layers.9.q"]), file(&["layers.10.q", "layers.1.q.scale", "b"])];
        assert_eq!(host_digest(&mut parts.each_ref().map(Cursor::new)).unwrap(), digest);
        let other = file(&["layers.10.q", "layers.9.q", "b"]);
        assert_ne!(host_digest(&mut [Cursor::new(&other)]).unwrap(), digest);
        let tensor = HostTensor { name: "b", dtype: "F32", shape: &[2], data: &[0; 8] };
        assert_ne!(crate::model::host_digest([tensor]).unwrap(), digest);
    }

    #[test]
    fn what_is_no_file_of_weights_is_refused() {
        let (whole, twice) = (file(&["a", "b"]), file(&["b", "c"]));
        let refused = |files: &[&[u8]]| {
            let mut files: Vec<Cursor<&[u8]>> = files.iter().map(|bytes| Cursor::new(*bytes)).collect();
            host_digest(&mut files).unwrap_err()
        };
        let inside =
            |error: &io::Error| error.get_ref().and_then(|error| error.downcast_ref::<Error>()).map(Error::kind);
        for cut in [0, 7, 8, 60] {
            assert_eq!(refused(&[&whole[..cut]]).kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        let error = refused(&[&whole[..whole.len() - 1]]);
        assert_eq!((error.kind(), inside(&error)), (io::ErrorKind::InvalidData, Some(ErrorKind::ModelFileSyntax)));
        let error = refused(&[&whole, &twice]);
        assert_eq!(inside(&error), Some(ErrorKind::WrongShape));
        assert!(error.to_string().contains("b: the name stands twice"), "{error}");
        assert_eq!(inside(&refused(&[])), Some(ErrorKind::WrongShape));
        // No memory is allocated for a length that the file does not have.
        let mut huge = whole.clone();
        huge[..8].copy_from_slice(&(1_u64 << 24).to_le_bytes());
        assert_eq!(refused(&[&huge]).kind(), io::ErrorKind::UnexpectedEof);
        huge[..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        assert_eq!(inside(&refused(&[&huge])), Some(ErrorKind::ModelFileSyntax));
    }
}
