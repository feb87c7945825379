//! Opens devices by their names on the command line.

#[cfg(any(feature = "cuda", feature = "metal"))]
use anyhow::Context;
use anyhow::{Result, bail};
use candle_core::Device;

/// The device with this name.
///
/// # Errors
/// The name is not that of a device, or this build or this machine lacks the device.
pub(crate) fn open(name: &str) -> Result<Device> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let Ok(number) = number.parse::<usize>() else { bail!("--device {name}: cpu, cuda, cuda:1 or metal") };
    match kind {
        "cpu" if name == kind => Ok(Device::Cpu),
        #[cfg(feature = "cuda")]
        "cuda" => midspan_device::kernels::open(number).with_context(|| format!("--device {name}")),
        #[cfg(feature = "metal")]
        "metal" => Device::new_metal(number).with_context(|| format!("--device {name}")),
        #[allow(unreachable_patterns)]
        "cuda" | "metal" => {
            bail!("--device {name}: device {number} is for builds with --features {kind}, which this one is not")
        }
        _ => bail!("--device {name}: cpu, cuda, cuda:1 or metal"),
    }
}
