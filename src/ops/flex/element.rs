use burn::tensor::Element;
use num_traits::Float;

/// Element types the flex kernels compute in: `f32` for speed, `f64` for gradient checks.
pub(crate) trait Real: Element + bytemuck::Pod + Float + std::iter::Sum {
    /// `e^self`; written so that a loop over it vectorises.
    fn exp_lane(self) -> Self;
    /// Conversion of a constant.
    fn of(value: f64) -> Self;
    /// Widening, for sums over many rows.
    fn wide(self) -> f64;
}

impl Real for f32 {
    /// Cody-Waite range reduction and the degree-6 polynomial of Cephes `expf`: relative error below 2e-7 between
    /// -87 and 88, clamped outside, not-a-number kept.
    #[inline(always)]
    fn exp_lane(self) -> Self {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
        const LOG2_E: f32 = std::f32::consts::LOG2_E;
        const LN_2_HIGH: f32 = 0.693_359_4;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        let x = if self < -87.0 { -87.0 } else { self };
        let x = if x > 88.0 { 88.0 } else { x };
        let rounded = x * LOG2_E + ROUND;
        let power = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
        let n = rounded - ROUND;
        let r = x - n * LN_2_HIGH - n * LN_2_LOW;
        let mut p = 1.987_569_1e-4_f32;
        p = p * r + 1.398_2e-3;
        p = p * r + 8.333_452e-3;
        p = p * r + 4.166_579_6e-2;
        p = p * r + 1.666_666_5e-1;
        p = p * r + 0.5;
        let y = p * r * r + r + 1.0;
        y * f32::from_bits(power.wrapping_add(127).wrapping_shl(23) as u32)
    }

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    #[inline(always)]
    fn exp_lane(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_standard_library() {
        let worst = (-8_700..=8_800)
            .map(|i| i as f32 / 100.0 + 0.001_3)
            .filter(|x| *x <= 88.0)
            .map(|x| ((f64::from(x.exp_lane()) - f64::from(x).exp()) / f64::from(x).exp()).abs())
            .fold(0.0, f64::max);
        assert!(worst < 2e-7, "relative error {worst:e}");
    }

    #[test]
    fn exp_keeps_not_a_number_and_saturates() {
        assert!(f32::NAN.exp_lane().is_nan());
        assert!(f32::NEG_INFINITY.exp_lane() < 2e-38);
        assert!(f32::INFINITY.exp_lane() > 1e38);
    }
}
