//! Functions in one instruction each, for devices that take PTX.

use cubecl::prelude::*;

/// Two to the power of `exponent`, off by 2^-22 of it at most, and zero below 2^-126 (CUDA's PTX ISA, `ex2.approx`).
#[cube]
pub(crate) fn exp2_of(exponent: f32) -> f32 {
    let power: f32;
    gpu_asm!("ex2.approx.ftz.f32 {}, {};", out(_) power, in(_) exponent, options(pure, nomem));
    power
}

/// One over `value`, off by a unit in the last place at most (`rcp.approx`).
#[cube]
pub(crate) fn reciprocal_of(value: f32) -> f32 {
    let reciprocal: f32;
    gpu_asm!("rcp.approx.ftz.f32 {}, {};", out(_) reciprocal, in(_) value, options(pure, nomem));
    reciprocal
}
