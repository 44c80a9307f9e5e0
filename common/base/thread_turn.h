// SPDX-License-Identifier: Apache-2.0
// thread_turn: what a thread tells Linux's scheduler of itself where threads that answer
// at once share processors with threads that compute for long. Each call is about the
// calling thread alone, may be refused (by the kernel's age or a container's rules), and
// no harm is done then: threads get the turns they got before.
#ifndef DEPUTY_COMMON_BASE_THREAD_TURN_H_
#define DEPUTY_COMMON_BASE_THREAD_TURN_H_

// The shortest slice that the kernel knows, in microseconds.
#define THREAD_TURN_MIN_US 100

// thread_turn_short asks for short turns, soon (sched_setattr(2), sched_runtime of
// SCHED_OTHER; Linux 6.12 on): a thread that is woken takes the processor at once from
// one whose turns are longer, which would otherwise end its turn first, whatever its
// nice value says. The thread's share of time stays what it was, as do its policy and
// nice value; another policy than SCHED_OTHER or SCHED_BATCH is left alone.
void thread_turn_short(void);

// thread_turn_yield makes the thread give way to others, by its nice value: 1 to 19.
void thread_turn_yield(int nice);

#endif  // DEPUTY_COMMON_BASE_THREAD_TURN_H_
