// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/admission.h"

bool admission_is_busy(const struct admission *admission, int64_t now_us) {
  return admission->is_busy && now_us - admission->judged_us < ADMISSION_BUSY_US;
}

enum admission_answer admission_judge(const struct admission *admission,
                                      const struct admission_limits *limits, size_t num_others,
                                      int64_t oldest_us, int64_t now_us) {
  if (num_others > 0 && limits->lag_us > 0 && admission_is_busy(admission, now_us)) {
    return ADMISSION_BUSY;
  }
  if (limits->num_handshakes == 0 || (int64_t)admission->num_handshakes < limits->num_handshakes) {
    return ADMISSION_YES;
  }
  return oldest_us >= ADMISSION_DISPLACE_US ? ADMISSION_DISPLACE : ADMISSION_HANDSHAKES;
}

bool admission_wants_pulse(const struct admission *admission, int64_t now_us) {
  return admission->sent_us == 0 && now_us - admission->judged_us >= ADMISSION_PULSE_EVERY_US;
}

void admission_note_sent(struct admission *admission, int64_t now_us, int64_t cpu_us) {
  admission->sent_us = now_us;
  admission->sent_cpu_us = cpu_us;
  admission->work_us = 0;
}

int64_t admission_on_pulse(struct admission *admission, const struct admission_limits *limits,
                           int64_t now_us, int64_t cpu_us) {
  int64_t lag_us = now_us - admission->sent_us;
  int64_t ran_us = cpu_us - admission->sent_cpu_us;
  // Who is busy already has to do better than the limits to be so no more.
  int64_t part = admission_is_busy(admission, now_us) ? 2 : 1;

  admission->sent_us = 0;
  admission->judged_us = now_us;
  admission->is_busy = (ran_us * part > limits->lag_us &&
                        admission->work_us * 100 * part >= lag_us * limits->share_percent) ||
                       admission->wait_us * part > limits->lag_us;
  return lag_us;
}
