//! Checkpoints: one safetensors file with weights, optimiser state and counters, written atomically.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};

use super::{Error, FileFault, context};

/// Writes a temporary file in the same folder and renames it, so that no reader ever sees an incomplete file. A link
/// stays a link to the new file. What is there and is no regular file, such as a pipe or a device, is written to and
/// stays what it is.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written. The old file is then kept.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), Error> {
    let found = std::fs::metadata(path);
    if found.as_ref().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let through = || {
            let mut file = BufWriter::new(std::fs::File::options().write(true).open(path)?);
            write(&mut file)?;
            file.flush()
        };
        return through().map_err(context(path));
    }
    let target = if found.is_ok() { path.canonicalize().map_err(context(path))? } else { path.to_path_buf() };
    let path = target.as_path();
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    // The name contains the process id, because another program may be writing the same file.
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(context(dir))?;
    }
    let written = (|| {
        let mut file = BufWriter::new(std::fs::File::create(&part)?);
        write(&mut file)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&part, path)
    })();
    written.map_err(|error| {
        // An incomplete file is of no use, and takes room on a full disk.
        let _ = std::fs::remove_file(&part);
        context(path)(error)
    })
}

/// Removes temporary files for `path` that killed programs left. Only for files that one program at a time writes.
pub fn remove_parts(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
    let name = format!("{}.", name.to_string_lossy());
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        if other.strip_prefix(&name).is_some_and(|rest| rest == "part" || rest.ends_with(".part")) {
            // A file that cannot be removed only takes disk space.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Saves f32, bf16, u32 and u8 tensors and text fields as a safetensors file.
///
/// # Errors
/// [`Error::File`] if a tensor has another type, [`Error::Io`] if the file cannot be written.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>, meta: &BTreeMap<String, String>) -> Result<(), Error> {
    let mut held = Vec::with_capacity(tensors.len());
    for (name, t) in tensors {
        let flat = t.flatten_all()?;
        let (dtype, bytes) = match t.dtype() {
            DType::F32 => (Dtype::F32, flat.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect()),
            DType::U32 => (Dtype::U32, flat.to_vec1::<u32>()?.iter().flat_map(|v| v.to_le_bytes()).collect()),
            DType::U8 => (Dtype::U8, flat.to_vec1::<u8>()?),
            DType::BF16 => {
                // A bf16 is the upper half of the f32 of the same value.
                let values = flat.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                let bytes = values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes());
                (Dtype::BF16, bytes.collect())
            }
            found => return Err(Error::file(path, FileFault::OtherType { name: name.clone(), found })),
        };
        let bytes: Vec<u8> = bytes;
        held.push((name, dtype, t.dims().to_vec(), bytes));
    }
    let not_saved = |why| Error::file(path, FileFault::NotSaved(why));
    let mut views = Vec::with_capacity(held.len());
    for (name, dtype, dims, bytes) in &held {
        let view = TensorView::new(*dtype, dims.clone(), bytes).map_err(not_saved)?;
        views.push((name.as_str(), view));
    }
    let meta: HashMap<String, String> = meta.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let bytes = safetensors::serialize(views, Some(meta)).map_err(not_saved)?;
    write_atomically(path, |f| f.write_all(&bytes))
}

/// Tensors by name, and text fields.
pub type Loaded = (BTreeMap<String, Tensor>, BTreeMap<String, String>);

/// Reads what [`save`] wrote; bf16 tensors come back as f32.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::File`] with [`FileFault::NoCheckpoint`] if it is no safetensors
/// file of these types.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    let bytes = std::fs::read(path).map_err(context(path))?;
    let no_checkpoint = |why| Error::file(path, FileFault::NoCheckpoint(why));
    let (_, meta) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|why| no_checkpoint(why.into()))?;
    let tensors =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|why| no_checkpoint(why.into()))?;
    let meta = meta.metadata().clone().unwrap_or_default();
    let wide = |(name, t): (String, Tensor)| {
        let t = if t.dtype() == DType::BF16 { t.to_dtype(DType::F32)? } else { t };
        Ok((name, t))
    };
    Ok((tensors.into_iter().map(wide).collect::<Result<_, Error>>()?, meta.into_iter().collect()))
}

/// The weights of a checkpoint in bf16, without optimiser state: a quarter of the size, to start other runs from.
///
/// # Errors
/// When a tensor cannot be converted.
pub fn compact((tensors, meta): &Loaded) -> Result<Loaded, Error> {
    let weights = tensors.iter().filter(|(name, _)| !name.starts_with("optimizer."));
    let narrow = weights.map(|(name, t)| Ok((name.clone(), t.to_dtype(DType::BF16)?)));
    Ok((narrow.collect::<Result<_, Error>>()?, meta.clone()))
}

/// The tensors whose name starts with `prefix`, without it.
pub fn part(tensors: &BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    tensors.iter().filter_map(|(n, t)| n.strip_prefix(prefix).map(|n| (n.to_string(), t.clone()))).collect()
}

/// Refuses a file of another run, whose text fields of these names differ. `what` names the file in the error.
///
/// # Errors
/// [`Error::Differs`] with the first that differs, and both values.
pub fn check_same<'a>(
    what: &'static str,
    own: &BTreeMap<String, String>,
    asked: &BTreeMap<String, String>,
    keys: impl IntoIterator<Item = &'a str>,
) -> Result<(), Error> {
    for key in keys {
        let (found, wanted) = (own.get(key).cloned(), asked.get(key).cloned());
        if found != wanted {
            return Err(Error::Differs { what, key: key.to_string(), found, wanted });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_comes_back() {
        let dir = std::env::temp_dir().join(format!("midspan-checkpoint-{}", std::process::id()));
        let path = dir.join("a.safetensors");
        let t = Tensor::new(&[[1f32, -2.5], [0.0, f32::MIN_POSITIVE]], &Device::Cpu).unwrap();
        let u = Tensor::new(&[7u32], &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([("w.a".to_string(), t), ("w.u".to_string(), u)]);
        let meta = BTreeMap::from([("step".to_string(), "12".to_string())]);
        save(&path, &tensors, &meta).unwrap();
        save(&path, &tensors, &meta).unwrap();
        let (back, fields) = load(&path).unwrap();
        assert_eq!(fields, meta);
        assert_eq!(back["w.a"].to_vec2::<f32>().unwrap(), tensors["w.a"].to_vec2::<f32>().unwrap());
        assert_eq!(part(&back, "w.").into_keys().collect::<Vec<_>>(), ["a", "u"]);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        let named = |n: &str| (n.to_string(), Tensor::new(&[1.5f32, 1.001], &Device::Cpu).unwrap());
        let state = BTreeMap::from([named("h.a"), named("optimizer.h.a")]);
        let small = compact(&(state, meta.clone())).unwrap();
        save(&path, &small.0, &small.1).unwrap();
        let (back, _) = load(&path).unwrap();
        assert_eq!(back["h.a"].to_vec1::<f32>().unwrap(), [1.5, 1.0]);
        assert_eq!(back.len(), 1);
        assert!(load(&dir.join("b.safetensors")).is_err());
        // Two programs that write the same file at once use different temporary files.
        let names = |dir: &Path| -> Vec<String> {
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        write_atomically(&dir.join("c"), |file| {
            assert!(names(&dir).contains(&format!("c.{}.part", std::process::id())), "{:?}", names(&dir));
            file.write_all(b"whole")
        })
        .unwrap();
        std::fs::remove_file(dir.join("c")).unwrap();
        for left in ["c.17.part", "c.part", "c.d", "cc.1.part"] {
            std::fs::write(dir.join(left), "left").unwrap();
        }
        remove_parts(&dir.join("c"));
        let mut left = names(&dir);
        left.sort();
        assert_eq!(left, ["a.safetensors", "c.d", "cc.1.part"]);
        ["c.d", "cc.1.part"].iter().for_each(|left| std::fs::remove_file(dir.join(left)).unwrap());
        // A file that cannot be written completely leaves the old file, and nothing else.
        let full = |file: &mut dyn Write| {
            file.write_all(b"half")?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        };
        assert!(write_atomically(&path, full).is_err());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        assert_eq!(load(&path).unwrap().0.len(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
