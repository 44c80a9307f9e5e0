# SPDX-License-Identifier: Apache-2.0
"""floor: the same handshake in memory, and the operations it is made of."""


def run(s):
    summary = s.client()("floor", rounds=s.p["rounds"], round_time=s.p["round_time"])
    rows = []
    for row in summary["rows"]:
        rows.append([row["name"], f"{row['median_us']:.1f}",
                     f"{row['min_us']:.1f} to {row['max_us']:.1f}", row["rounds"]])
        s.result.measure(row["name"], row["median_us"], row["min_us"], row["max_us"])
    s.result.table("CPU time of one, in us", ["what", "median", "min to max", "rounds"], rows)
    s.result.note("handshake.*: the server's side of one TLS 1.3 handshake (X25519) with"
                  " BoringSSL, both ends in memory; client.*: the light client's side;"
                  f" BoringSSL API {summary['boringssl_api']}.")
