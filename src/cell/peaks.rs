//! What a device can do at most, measured through its backend as everything else is.

use std::path::PathBuf;

use burn::tensor::{DType, Device, Tensor};
use burnmark_backend_api::Backend;
#[cfg(feature = "cubecl")]
use cubecl_common::device::OnCallersThread;

use super::measure::{dtypes, ensure_supported, opened};
use crate::backends;
use crate::measure::Clock;
#[cfg(feature = "cubecl")]
use crate::measure::{reading, throughput};
use crate::ops;
use crate::spec::{DeviceSpec, Event, Failure, Peaks, TuningCache};

/// Sides of the matrices whose product gives the peak, until one takes long enough.
const SIDES: [usize; 4] = [512, 2048, 4096, 8192];

/// Long enough for a product: a larger one would be no faster an operation.
const LONG_NS: u64 = 50_000_000;

/// Bytes of the tensor that is read and scaled for the peak of memory, on a processor and on other devices: far more
/// than caches hold.
const BYTES: [usize; 2] = [1 << 28, 1 << 30];

/// Runs of each; the fastest counts.
const RUNS: usize = 6;

/// Opens the device, and measures its peaks if they are wanted.
pub(super) fn run(
    spec: &DeviceSpec,
    cache: Option<PathBuf>,
    peaks: bool,
    emit: &mut dyn FnMut(Event),
) -> Result<(), Failure> {
    let (backend, device) = backends::open(&spec.backend, spec.mode, TuningCache::Kept, cache)?;
    ensure_supported(spec.precision, &device)?;
    emit(opened(backend, &device, &spec.backend, spec.mode, spec.precision));
    if peaks {
        let (_, dtype) = dtypes(spec.precision, false);
        emit(Event::Peaks(measured(backend, &device, dtype)?));
    }
    Ok(())
}

fn measured(backend: &dyn Backend, device: &Device, dtype: DType) -> Result<Peaks, Failure> {
    let clock = Clock::new(device);
    // As where steps are replayed: a peak waits for no thread of the device's. What opening asked for is done first.
    clock.sync()?;
    #[cfg(feature = "cubecl")]
    let _prepared_here = backend.capabilities().graph_capture.then(OnCallersThread::new);
    let per_second = |amount: f64, ns: u64| (ns > 0).then(|| amount / (ns as f64 / 1e9));
    let numbers = |shape: [usize; 2]| Tensor::<2>::ones(shape, (device, dtype));
    // A vendor's library is what is to be reached, and a tuner would ask for long.
    let vendor = matches!(backend.vendor_products(), Some(Ok(_)));
    let mut flops = Vec::new();
    for side in SIDES {
        let (a, b) = (numbers([side, side]), numbers([side, side]));
        let product = clock.fastest(RUNS, || {
            if vendor { ops::linear(a.clone(), b.clone(), ops::Products::Vendor) } else { a.clone().matmul(b.clone()) }
        })?;
        flops.push(per_second(2.0 * (side as f64).powi(3), product));
        if product > LONG_NS {
            break;
        }
    }
    let [processor, other] = BYTES;
    let size = if backend.threads().is_some() { processor } else { other };
    let long = numbers([size / dtype.size() / 1024, 1024]);
    let read = clock.fastest(RUNS, || long.clone().sum())?;
    let scaled = clock.fastest(RUNS, || long.clone() * 0.5)?;
    drop(long);
    #[cfg(feature = "cubecl")]
    let (probed, alone) = (throughput(device, dtype, backend.capabilities().tf32), reading(device, size)?);
    #[cfg(not(feature = "cubecl"))]
    let (probed, alone) = (Peaks::default(), None);
    let bytes = size as f64;
    flops.push(probed.flops_per_s);
    let rates = [per_second(bytes, read), per_second(2.0 * bytes, scaled), probed.bytes_per_s, alone];
    let most = |rates: &[Option<f64>]| rates.iter().copied().flatten().reduce(f64::max);
    Ok(Peaks { flops_per_s: most(&flops), bytes_per_s: most(&rates) })
}
