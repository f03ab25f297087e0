use burn::tensor::Tensor;

use super::*;
use crate::ops::testing::devices;

#[test]
fn values_change_on_every_device() {
    for tested in devices() {
        let ids = |from: i64| Tensor::<1, Int>::arange(from..from + 6, &tested.device).reshape([2, 3]);
        let (mut held, mut position) = (ids(0), Tensor::<1, Int>::from_data([0_i64], &tested.device));
        for at in [7, 3] {
            (held, position) = place((held, position), ids(at as i64), at);
            assert_eq!(
                held.clone().into_data().iter::<i64>().collect::<Vec<_>>(),
                (at as i64..at as i64 + 6).collect::<Vec<_>>()
            );
            assert_eq!(position.clone().into_data().iter::<i64>().collect::<Vec<_>>(), [at as i64], "{}", tested.name);
        }
    }
}
