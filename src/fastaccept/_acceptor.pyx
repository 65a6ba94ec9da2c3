"""Acceptor: from pause reasons to what a client meets (see _acceptor.pxd). It decides nothing about pausing (_admission does) and
makes no system call (the backend does)."""
from libc.stdint cimport INT64_MAX
from fastaccept._admission cimport (
    ADM_CHANGE, ADM_PAUSE, ADM_RESUME, REASON_MEMORY, REASON_RESOURCES, REASON_USER, admission_accepted, admission_count_failure,
    admission_drain, admission_init, admission_limits, admission_memory, admission_pause, admission_released,
    admission_resources_short, admission_resume, admission_retry, admission_verdict,
)
from fastaccept._backend cimport ACCEPT_FATAL, ACCEPT_PAUSE, ACCEPT_RETRY, MODE_ACCEPT, MODE_QUEUE, MODE_REFUSE, MODE_REJECT
from fastaccept._stats cimport stats_count_accept_error

from fastaccept.errors import os_error


cdef class Acceptor:
    def __cinit__(self):
        self.limits.active = 0
        self.limits.high = INT64_MAX
        self.limits.low = INT64_MAX - 1
        self.full_mode = MODE_QUEUE
        self.user_mode = MODE_REFUSE
        self.memory_limit = self.memory_due_ms = INT64_MAX

    cdef int64_t open(self, handle_t handle, int backlog, int64_t now_ms) except -1:
        """Take a bound handle over and listen on it. Raises OSError, and then the handle is the caller's still."""
        cdef uint32_t number = 0
        cdef listener_t *listener
        cdef int done
        while number < self.n_listeners and self.listeners[number].is_open:
            number += 1
        if number == LISTENERS_MAX:
            raise ValueError(f"a server has {LISTENERS_MAX} listeners at most")
        done = self.backend.listener_open(number, handle, backlog)
        if done < 0:
            raise os_error(-done)
        self.n_listeners = max(self.n_listeners, number + 1)
        listener = &self.listeners[number]
        listener.is_open = True
        listener.mode = MODE_QUEUE
        listener.reject_failed = False
        admission_init(&listener.admission)
        admission_limits(&listener.admission, &self.limits, now_ms)
        self._look_at_memory(now_ms)
        return number

    cdef void close(self, uint32_t number) noexcept:
        if number < self.n_listeners and self.listeners[number].is_open:
            self.listeners[number].is_open = False
            self.listeners[number].admission.retry_at_ms = INT64_MAX
            self.backend.listener_close(number)

    cdef int64_t next_ms(self) noexcept:
        cdef int64_t due = self.memory_due_ms
        cdef uint32_t i
        for i in range(self.n_listeners):
            due = min(due, self.listeners[i].admission.retry_at_ms)
        return due

    # ---- events

    cdef void opened(self, uint32_t number, int64_t now_ms) noexcept:
        self.limits.active += 1
        self.stats.accepted += 1
        admission_accepted(&self.listeners[number].admission)
        if self.limits.active >= self.limits.high:
            self.limits_changed(now_ms)

    cdef void released(self, int64_t now_ms) noexcept:
        cdef uint32_t i
        self.limits.active -= 1
        for i in range(self.n_listeners):
            admission_limits(&self.listeners[i].admission, &self.limits, now_ms)
            admission_released(&self.listeners[i].admission, now_ms)
        if self.memory_due_ms != INT64_MAX:
            self.memory_due_ms = min(self.memory_due_ms, self.memory_looked_ms + MEMORY_LOOK_MS)

    cdef void limits_changed(self, int64_t now_ms) noexcept:
        cdef uint32_t i
        for i in range(self.n_listeners):
            admission_limits(&self.listeners[i].admission, &self.limits, now_ms)

    cdef int set_memory_limit(self, int64_t limit, int64_t now_ms) except -1:
        self.memory_limit = limit
        return self._look_at_memory(now_ms)

    cdef int _look_at_memory(self, int64_t now_ms) except -1:
        """Ask the owner what the kernel holds, and let it count for every listener."""
        cdef int64_t used = -1
        cdef uint32_t i
        if self.memory_limit != INT64_MAX:
            used = self.owner._kernel_memory()
        self.memory_looked_ms = now_ms
        self.memory_accepted = self.stats.accepted
        self.memory_due_ms = INT64_MAX
        for i in range(self.n_listeners):
            admission_memory(&self.listeners[i].admission, used, self.memory_limit, now_ms)
            if self.listeners[i].is_open and self.listeners[i].admission.reasons & REASON_MEMORY:
                self.memory_due_ms = now_ms + MEMORY_RETRY_MS
        return 0

    cdef int ended(self, const io_event_t *event, int64_t now_ms) except -1:
        cdef uint32_t number = <uint32_t>event.token
        if not self.listeners[number].is_open:
            return 0
        if event.accept_class == ACCEPT_RETRY:
            stats_count_accept_error(self.stats, event.error)
            return 0
        if event.accept_class == ACCEPT_FATAL:
            stats_count_accept_error(self.stats, event.error)
            self.close(number)
            self.owner._accept_error(number, event.error, True, "listener closed", None)
            return 0
        return self.failed(number, event.error, event.accept_class == ACCEPT_PAUSE, now_ms)

    cdef int failed(self, uint32_t number, int error, bint everywhere, int64_t now_ms) except -1:
        """Pause for want of a resource: every listener where it is the process's or the machine's, else this one, whose fault must
        not stop the others. The owner is told whether an episode begins with it."""
        cdef listener_t *listener = &self.listeners[number]
        cdef bint is_new = admission_count_failure(&listener.admission, now_ms)
        cdef uint32_t i
        stats_count_accept_error(self.stats, error)
        listener.reject_failed = listener.mode == MODE_REJECT
        admission_resources_short(&listener.admission, now_ms)
        if everywhere:
            for i in range(self.n_listeners):
                if i != number and self.listeners[i].is_open:
                    is_new = admission_count_failure(&self.listeners[i].admission, now_ms) and is_new
                    admission_resources_short(&self.listeners[i].admission, now_ms)
        self.owner._accept_error(number, error, is_new, "paused", (listener.admission.retry_at_ms - now_ms) / 1000.0)
        return 0

    cdef int retry(self, int64_t now_ms) except -1:
        cdef uint32_t i
        for i in range(self.n_listeners):
            admission_retry(&self.listeners[i].admission, now_ms)
        return self._look_at_memory(now_ms) if now_ms >= self.memory_due_ms else 0

    cdef void pause(self, int64_t now_ms) noexcept:
        cdef uint32_t i
        for i in range(self.n_listeners):
            admission_pause(&self.listeners[i].admission, now_ms)

    cdef void resume(self, int64_t now_ms) noexcept:
        cdef uint32_t i
        for i in range(self.n_listeners):
            admission_resume(&self.listeners[i].admission, now_ms)

    cdef void drain(self, int64_t now_ms) noexcept:
        """The sockets are closed and not only refused: one that other processes share goes on working for them."""
        cdef uint32_t i
        for i in range(self.n_listeners):
            admission_drain(&self.listeners[i].admission, now_ms)
            self.close(i)

    # ---- once a turn

    cdef int settle(self, int64_t now_ms) except -1:
        """Act on what has become of each listener's reasons, and tell the owner."""
        cdef listener_t *listener
        cdef int verdict
        cdef uint32_t i
        if (self.memory_limit != INT64_MAX and self.stats.accepted != self.memory_accepted
                and now_ms >= self.memory_looked_ms + MEMORY_LOOK_MS):
            self._look_at_memory(now_ms)
        for i in range(self.n_listeners):
            listener = &self.listeners[i]
            if not listener.is_open:
                continue
            if self._wanted_mode(listener) != listener.mode:
                self._apply_mode(i, now_ms)
            verdict = admission_verdict(&listener.admission)
            if verdict == ADM_RESUME:
                self.stats.resumes += 1
                self.owner._resumed(i)
            elif verdict == ADM_PAUSE or verdict == ADM_CHANGE:
                self.stats.pauses += verdict == ADM_PAUSE
                self.owner._paused(i, listener.admission.reasons)
        return 0

    cdef accept_mode_t _wanted_mode(self, const listener_t *listener) noexcept:
        cdef unsigned int reasons = listener.admission.reasons
        if reasons == 0:
            return MODE_ACCEPT
        if reasons & REASON_USER:
            return self.user_mode
        if self.full_mode == MODE_REJECT and listener.reject_failed and reasons & REASON_RESOURCES:
            return MODE_QUEUE
        return self.full_mode

    cdef int _apply_mode(self, uint32_t number, int64_t now_ms) except -1:
        cdef listener_t *listener = &self.listeners[number]
        cdef accept_mode_t wanted = self._wanted_mode(listener)
        cdef int done = self.backend.listener_mode(number, wanted)
        if done < 0:
            # listen() and epoll_ctl() need memory too: the same as a failed accept, and tried again in the same way.
            self.failed(number, -done, False, now_ms)
            return 0
        self.stats.refused_episodes += wanted == MODE_REFUSE
        listener.mode = wanted
        return 0
