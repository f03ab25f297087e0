//! How fast a CubeCL device reads when it does nothing else.

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::Clock;
use crate::spec::Failure;

/// Numbers of a vector, 16 bytes: as many as a unit reads at once on the devices that read most.
const WIDTH: usize = 4;

/// Vectors that a unit asks for before it adds up the first.
const ASKED: usize = 8;

/// Units of a cube.
const UNITS: u32 = 256;

/// Most launches of a run, one behind the other, so that what the host does for the first is lost among them; fewer where one takes long.
const LAUNCHES: u64 = 32;
const LONG_NS: u64 = 20_000_000;

/// Runs; the fastest counts.
const RUNS: usize = 3;

/// Bytes a second of a kernel that reads `bytes`, a power of two, from end to end and keeps no more than a sum; `None` on a device without
/// CubeCL, or whose memory has no room for them.
///
/// # Errors
///
/// If the device fails.
pub(crate) fn reading(device: &Device, bytes: usize) -> Result<Option<f64>, Failure> {
    let DispatchDevice::Cube(cube) = device.as_dispatch() else { return Ok(None) };
    let client = cube.client();
    // Given back when they are dropped: no page of a pool grows by them.
    let (numbers, found) = client.memory_dedicated_allocation((), |()| (client.empty(bytes), client.empty(4)));
    let count = bytes / (WIDTH * size_of::<f32>());
    let clock = Clock::new(device);
    let (cubes, dim) = shared_out(&client, count);
    // SAFETY: the buffer was asked for with so many bytes.
    let of_numbers = unsafe { BufferArg::from_raw_parts(numbers.clone(), count) };
    // Memory that nobody has written need not be there at all.
    clock.time(|| fill::launch(&client, cubes, dim, WIDTH, of_numbers, count))?;
    let shared = shared_out(&client, count / ASKED);
    let launch = || launch_read(&client, shared.clone(), &numbers, &found, count);
    // The first of two is compiled.
    let launches = (LONG_NS / clock.fastest(2, launch)?.max(1)).clamp(1, LAUNCHES);
    let fastest = clock.fastest(RUNS, || (0..launches).for_each(|_| launch()))?;
    // Where nothing was launched, nothing was read.
    let read = client.check([&numbers, &found]).is_ok() && fastest > 0;
    Ok(read.then(|| launches as f64 * bytes as f64 / (fastest as f64 / 1e9)))
}

/// Reads `count` vectors once.
fn launch_read(client: &Client, (cubes, dim): (CubeCount, CubeDim), numbers: &Handle, found: &Handle, count: usize) {
    // SAFETY: who made the buffers asked for `count` vectors and one number.
    let (numbers, found) =
        unsafe { (BufferArg::from_raw_parts(numbers.clone(), count), BufferArg::from_raw_parts(found.clone(), 1)) };
    read::launch(client, cubes, dim, WIDTH, numbers, found, count);
}

/// Cubes for `units` units.
fn shared_out(client: &Client, units: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(UNITS.min(client.properties().hardware.max_units_per_cube));
    (cubecl::calculate_cube_count_elemwise(client, units, dim), dim)
}

#[cube(launch)]
fn fill<W: Size>(numbers: &mut [Vector<f32, W>], count: usize) {
    if ABSOLUTE_POS < count {
        numbers[ABSOLUTE_POS] = Vector::new(1.0);
    }
}

/// What is found is written where it cannot be, which no compiler knows.
#[cube(launch)]
fn read<W: Size>(numbers: &[Vector<f32, W>], found: &mut [f32], count: usize) {
    let first = CUBE_POS * CUBE_DIM as usize * ASKED + UNIT_POS as usize;
    if first < count {
        let mut asked = Array::<Vector<f32, W>>::new(ASKED);
        #[unroll]
        for i in 0..ASKED {
            asked[i] = numbers[first + i * CUBE_DIM as usize];
        }
        let mut sum = Vector::new(0.0);
        #[unroll]
        for i in 0..ASKED {
            sum += asked[i];
        }
        let sum = sum.vector_sum();
        if sum < 0.0 {
            found[0] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::devices;

    /// Were something not read, what is negative there would not be found.
    #[test]
    fn every_number_is_read() {
        for tested in devices() {
            let rate = reading(&tested.device, 1 << 20).expect("the device works");
            let DispatchDevice::Cube(cube) = tested.device.as_dispatch() else {
                assert_eq!(rate, None, "{}", tested.name);
                continue;
            };
            assert!(rate.is_some_and(f64::is_normal), "{}: {rate:?}", tested.name);
            let (client, count) = (cube.client(), 1 << 14);
            let found = |numbers: &[f32]| {
                let [numbers, found] =
                    [numbers, &[0.0][..]].map(|all| client.create_from_slice(bytemuck::cast_slice(all)));
                launch_read(&client, shared_out(&client, count / ASKED), &numbers, &found, count);
                bytemuck::cast_slice::<u8, f32>(&client.read_one(found).expect("the device works"))[0]
            };
            let mut numbers = vec![1.0; count * WIDTH];
            assert!(found(&numbers) >= 0.0, "{}", tested.name);
            for place in [0, 1, 1023, 1024, 40_000, count * WIDTH - 1] {
                numbers[place] = -1e6;
                let away = found(&numbers) + 1e6 - (ASKED * WIDTH - 1) as f32;
                assert!(away.abs() < 0.5, "{}, number {place}", tested.name);
                numbers[place] = 1.0;
            }
        }
    }
}
