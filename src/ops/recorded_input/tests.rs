use burn::tensor::Tensor;

use super::*;
use crate::ops::testing::devices;

#[test]
fn values_change_on_every_device() {
    for tested in devices() {
        let ids = |from: i64| Tensor::<1, Int>::arange(from..from + 6, &tested.device).reshape([2, 3]);
        let mut inputs = RecordedInput::new(ids(0), 0);
        for at in [7, 3] {
            inputs.place(ids(at as i64), at);
            let placed: Vec<i64> = inputs.ids().into_data().iter().collect();
            assert_eq!(placed, (at as i64..at as i64 + 6).collect::<Vec<_>>(), "{}", tested.name);
            let position: Vec<i64> = inputs.position().into_data().iter().collect();
            assert_eq!(position, [at as i64], "{}", tested.name);
        }
    }
}
