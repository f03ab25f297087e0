//! What a CubeCL device reaches in CubeCL's own probes of its hardware.

use burn::tensor::{DType, Device, MemoryAccess, ThroughputKey, ThroughputMode};
use cubecl::ir::{ElemType, FloatKind};
use cubecl::throughput::compute_throughput_key;

use crate::spec::Peaks;

/// Tiles of the matrix units, `m x n x k`: of 16-bit elements, of TF32 and of double precision.
const TILES: [(u32, u32, u32); 3] = [(16, 16, 16), (16, 16, 8), (8, 8, 4)];

/// Asks the device's probes: the products of its matrix units, or of plain units where those are faster or alone, and
/// a copy, both directions counted. The probe that only reads is left out for [`super::reading`]: llvmpipe's compiler sees that
/// nobody wants what this one read. What the device has no peak for is `None`, and so is everything of a device without CubeCL.
pub(crate) fn throughput(device: &Device, dtype: DType, tf32: bool) -> Peaks {
    let factors: &[FloatKind] = match dtype {
        DType::F64 => &[FloatKind::F64],
        DType::F16 => &[FloatKind::F16],
        DType::BF16 => &[FloatKind::BF16],
        _ if tf32 => &[FloatKind::F32, FloatKind::TF32],
        _ => &[FloatKind::F32],
    };
    let sum = ElemType::Float(if dtype == DType::F64 { FloatKind::F64 } else { FloatKind::F32 });
    let tiles = factors.iter().flat_map(|&kind| TILES.map(|tile| (Some(tile), ElemType::Float(kind))));
    let units = factors.iter().map(|&kind| (None, ElemType::Float(kind)));
    let products: Vec<ThroughputKey> = tiles
        .chain(units)
        .map(|(tile, kind)| compute_throughput_key(tile, kind, if tile.is_some() { sum } else { kind }))
        .collect();
    let copy = ThroughputKey { mode: ThroughputMode::memory(MemoryAccess::Copy) };
    let fastest = |keys: &[ThroughputKey], of_bytes: bool| {
        let stats = device.performance_stats(keys).into_iter();
        let rates = stats.filter_map(|stat| {
            let value = stat.value.ok()?;
            Some(if of_bytes { value.bytes_per_s(&stat.key) } else { value.ops_per_s() })
        });
        rates.filter(|rate| rate.is_finite()).reduce(f64::max)
    };
    Peaks { flops_per_s: fastest(&products, false), bytes_per_s: fastest(&[copy], true) }
}
