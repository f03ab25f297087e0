//! A device's services on a thread of their own, or on that of whoever calls.

use core::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use super::channel::ChannelDeviceHandle;
use super::reentrant::ReentrantMutexDeviceHandle;
use super::{CallError, DeviceHandleSpec, ServiceCreationError};
use crate::device::{DeviceId, DeviceService, ServerUtilitiesHandle};

static ON_CALLERS_THREAD: OnceLock<bool> = OnceLock::new();

/// Has the services of all devices run on the thread of whoever calls: a call is there and back sooner, but nothing is
/// prepared beside it. To be said before there is a handle; `false` if it is too late.
pub fn run_on_callers_thread() -> bool {
    *ON_CALLERS_THREAD.get_or_init(|| true)
}

fn on_callers_thread() -> bool {
    *ON_CALLERS_THREAD.get_or_init(|| false)
}

/// One of the two, for all handles alike.
#[derive(Clone)]
pub enum EitherDeviceHandle {
    OwnThread(ChannelDeviceHandle),
    CallersThread(ReentrantMutexDeviceHandle),
}

impl DeviceHandleSpec for EitherDeviceHandle {
    // Asked by collectives alone, of which a single device has none.
    const BLOCKING: bool = false;

    fn insert<S: DeviceService>(
        device_id: DeviceId,
        service: S,
    ) -> Result<Self, ServiceCreationError> {
        if on_callers_thread() {
            <ReentrantMutexDeviceHandle as DeviceHandleSpec>::insert(device_id, service)
                .map(Self::CallersThread)
        } else {
            ChannelDeviceHandle::insert(device_id, service).map(Self::OwnThread)
        }
    }

    fn new<S: DeviceService>(device_id: DeviceId) -> Self {
        if on_callers_thread() {
            Self::CallersThread(<ReentrantMutexDeviceHandle as DeviceHandleSpec>::new::<S>(
                device_id,
            ))
        } else {
            Self::OwnThread(ChannelDeviceHandle::new::<S>(device_id))
        }
    }

    fn device_id(&self) -> DeviceId {
        match self {
            Self::OwnThread(handle) => handle.device_id(),
            Self::CallersThread(handle) => handle.device_id(),
        }
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        match self {
            Self::OwnThread(handle) => handle.utilities(),
            Self::CallersThread(handle) => handle.utilities(),
        }
    }

    fn flush_queue(&self) {
        if let Self::OwnThread(handle) = self {
            handle.flush_queue();
        }
    }

    fn submit_blocking<'a, R: Send, T: FnOnce(&mut dyn Any) -> R + Send + 'a>(
        &self,
        task: T,
    ) -> Result<R, CallError> {
        match self {
            Self::OwnThread(handle) => handle.submit_blocking(task),
            Self::CallersThread(handle) => caught(|| handle.submit_blocking(task)),
        }
    }

    fn submit<T: FnOnce(&mut dyn Any) + Send + 'static>(&self, task: T) {
        match self {
            Self::OwnThread(handle) => handle.submit(task),
            Self::CallersThread(handle) => {
                if let Err(err) = caught(|| handle.submit_blocking(task)) {
                    log::warn!("Task failed: {err:?}");
                }
            }
        }
    }

    fn exclusive<R: Send, T: FnOnce() -> R + Send>(&self, task: T) -> Result<R, CallError> {
        match self {
            Self::OwnThread(handle) => handle.exclusive(task),
            Self::CallersThread(handle) => caught(|| handle.exclusive(task)),
        }
    }

    fn shutdown(device_id: DeviceId) {
        if !on_callers_thread() {
            ChannelDeviceHandle::shutdown(device_id);
        }
    }
}

/// A panic of the task is its outcome, as if it had run on another thread.
fn caught<R>(task: impl FnOnce() -> Result<R, CallError>) -> Result<R, CallError> {
    catch_unwind(AssertUnwindSafe(task)).unwrap_or_else(|payload| Err(CallError::from_panic(payload)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::next_test_device_id;
    use super::*;

    struct Inner;
    struct Outer;

    impl DeviceService for Inner {
        fn init(_: DeviceId) -> Self {
            Self
        }
        fn utilities(&self) -> ServerUtilitiesHandle {
            Arc::new(7u32)
        }
    }

    impl DeviceService for Outer {
        fn init(device: DeviceId) -> Self {
            on_callers_thread_of::<Inner>(device).submit(|_| {});
            Self
        }
        fn utilities(&self) -> ServerUtilitiesHandle {
            Arc::new(())
        }
    }

    fn on_callers_thread_of<S: DeviceService>(device: DeviceId) -> EitherDeviceHandle {
        EitherDeviceHandle::CallersThread(
            <ReentrantMutexDeviceHandle as DeviceHandleSpec>::new::<S>(device),
        )
    }

    #[test]
    fn a_service_may_ask_for_another_while_it_is_built() {
        let device = next_test_device_id();
        on_callers_thread_of::<Outer>(device);
        let inner = on_callers_thread_of::<Inner>(device).utilities();
        assert_eq!(inner.downcast_ref(), Some(&7u32));
    }

    #[test]
    fn a_panic_is_the_outcome_of_its_task() {
        let handle = on_callers_thread_of::<Inner>(next_test_device_id());
        let failed = handle.submit_blocking(|_| -> u32 { panic!("no") });
        assert_eq!(failed.unwrap_err().message(), Some("no"));
        handle.submit(|_| panic!("nobody waits"));
        assert!(handle.exclusive(|| 3).is_ok());
        let here = std::thread::current().id();
        assert_eq!(handle.submit_blocking(|_| std::thread::current().id()).ok(), Some(here));
    }
}
