//! A device's services on threads of their own, and on a thread that wants what it asks for done there.

use core::any::Any;
use core::cell::{Cell, RefCell};
use core::marker::PhantomData;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cubecl_environment::sync::reentrant::ReentrantMutex;

use super::channel::ChannelDeviceHandle;
use super::{CallError, DeviceHandleSpec, ServiceCreationError};
use crate::device::{DeviceId, DeviceService, DeviceServiceStage, ServerUtilitiesHandle};

std::thread_local! {
    static ON_CALLERS_THREAD: Cell<usize> = const { Cell::new(0) };
}

/// While it lives, what this thread asks of devices is done on this thread: a call is there and back sooner, but nothing is
/// prepared beside it. Nothing that this thread asked for before may still wait when it is made, and what other threads ask
/// for may be used here only once it is done.
pub struct OnCallersThread(PhantomData<*const ()>);

impl OnCallersThread {
    /// From now on.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        ON_CALLERS_THREAD.set(ON_CALLERS_THREAD.get() + 1);
        Self(PhantomData)
    }
}

impl Drop for OnCallersThread {
    fn drop(&mut self) {
        ON_CALLERS_THREAD.set(ON_CALLERS_THREAD.get() - 1);
    }
}

/// A service where every thread can reach it.
struct Shared {
    service: ReentrantMutex<RefCell<Box<dyn Any + Send>>>,
    utilities: ServerUtilitiesHandle,
}

impl Shared {
    fn act_on<R>(&self, task: impl FnOnce(&mut dyn Any) -> R) -> R {
        let service = self.service.lock();
        let mut service = service.try_borrow_mut().expect("Service state is already borrowed");
        task(&mut **service)
    }
}

/// What the thread made for the service `S` has of it.
struct Kept<S> {
    shared: Arc<Shared>,
    service: PhantomData<fn() -> S>,
}

impl<S: DeviceService> Kept<S> {
    fn of(service: S) -> Self {
        let utilities = service.utilities();
        let service = ReentrantMutex::new(RefCell::new(Box::new(service) as Box<dyn Any + Send>));
        Self { shared: Arc::new(Shared { service, utilities }), service: PhantomData }
    }
}

impl<S: DeviceService> DeviceService for Kept<S> {
    fn init(device_id: DeviceId) -> Self {
        Self::of(S::init(device_id))
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.shared.clone()
    }

    fn stage() -> DeviceServiceStage {
        S::stage()
    }
}

/// Asks the service's thread, or on the caller's thread the service itself.
#[derive(Clone)]
pub struct EitherDeviceHandle {
    thread: ChannelDeviceHandle,
    shared: Arc<Shared>,
}

impl EitherDeviceHandle {
    fn of(thread: ChannelDeviceHandle) -> Self {
        let shared = thread.utilities().downcast().expect("the utilities of what is kept");
        Self { thread, shared }
    }
}

impl DeviceHandleSpec for EitherDeviceHandle {
    // Asked by collectives alone, of which a single device has none.
    const BLOCKING: bool = false;

    fn insert<S: DeviceService>(
        device_id: DeviceId,
        service: S,
    ) -> Result<Self, ServiceCreationError> {
        ChannelDeviceHandle::insert(device_id, Kept::of(service)).map(Self::of)
    }

    fn new<S: DeviceService>(device_id: DeviceId) -> Self {
        Self::of(ChannelDeviceHandle::new::<Kept<S>>(device_id))
    }

    fn device_id(&self) -> DeviceId {
        self.thread.device_id()
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.shared.utilities.clone()
    }

    fn flush_queue(&self) {
        if !on_callers_thread() {
            self.thread.flush_queue();
        }
    }

    fn submit_blocking<'a, R: Send, T: FnOnce(&mut dyn Any) -> R + Send + 'a>(
        &self,
        task: T,
    ) -> Result<R, CallError> {
        if on_callers_thread() {
            caught(|| self.shared.act_on(task))
        } else {
            self.thread.submit_blocking(|_| self.shared.act_on(task))
        }
    }

    fn submit<T: FnOnce(&mut dyn Any) + Send + 'static>(&self, task: T) {
        if !on_callers_thread() {
            let shared = self.shared.clone();
            self.thread.submit(move |_| shared.act_on(task));
        } else if let Err(err) = self.submit_blocking(task) {
            log::warn!("Task failed: {err:?}");
        }
    }

    fn exclusive<R: Send, T: FnOnce() -> R + Send>(&self, task: T) -> Result<R, CallError> {
        let alone = || {
            let _service = self.shared.service.lock();
            task()
        };
        if on_callers_thread() { caught(alone) } else { self.thread.exclusive(alone) }
    }

    fn shutdown(device_id: DeviceId) {
        ChannelDeviceHandle::shutdown(device_id);
    }
}

fn on_callers_thread() -> bool {
    ON_CALLERS_THREAD.get() > 0
}

/// A panic of the task is its outcome, as if it had run on another thread.
fn caught<R>(task: impl FnOnce() -> R) -> Result<R, CallError> {
    catch_unwind(AssertUnwindSafe(task)).map_err(CallError::from_panic)
}

#[cfg(test)]
mod tests {
    use std::thread::{ThreadId, current};

    use super::super::next_test_device_id;
    use super::*;

    struct Counter(u32);

    impl DeviceService for Counter {
        fn init(_: DeviceId) -> Self {
            Self(0)
        }
        fn utilities(&self) -> ServerUtilitiesHandle {
            Arc::new(7u32)
        }
    }

    fn counted(handle: &EitherDeviceHandle) -> (u32, ThreadId) {
        let count = |service: &mut dyn Any| {
            let counter = service.downcast_mut::<Counter>().unwrap();
            counter.0 += 1;
            (counter.0, current().id())
        };
        handle.submit_blocking(count).unwrap()
    }

    #[test]
    fn one_service_is_asked_on_both_threads() {
        let handle = EitherDeviceHandle::new::<Counter>(next_test_device_id());
        assert_eq!(handle.utilities().downcast_ref(), Some(&7u32));
        let (first, own) = counted(&handle);
        let on_callers = (OnCallersThread::new(), OnCallersThread::new());
        let other = std::thread::scope(|scope| scope.spawn(|| counted(&handle)).join().unwrap());
        let here = counted(&handle);
        drop(on_callers.0);
        let still_here = counted(&handle);
        drop(on_callers.1);
        assert_ne!(own, current().id());
        assert_eq!((first, other, counted(&handle)), (1, (2, own), (5, own)));
        assert_eq!((here, still_here), ((3, current().id()), (4, current().id())));
    }

    #[test]
    fn a_panic_is_the_outcome_of_its_task() {
        let handle = EitherDeviceHandle::new::<Counter>(next_test_device_id());
        let fails = || {
            let failed = handle.submit_blocking(|_| -> u32 { panic!("no") });
            assert_eq!(failed.unwrap_err().message(), Some("no"));
            assert_eq!(handle.exclusive(current).unwrap().id(), counted(&handle).1);
        };
        fails();
        let _on_callers = OnCallersThread::new();
        fails();
        handle.submit(|_| panic!("nobody waits"));
        assert_eq!(counted(&handle).0, 3);
    }
}
