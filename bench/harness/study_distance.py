# SPDX-License-Identifier: Apache-2.0
"""distance: what a far key server costs a handshake, by key source.

local key   the proxy has the certificate's key (deputy-proxy-local-key): the baseline
keyless     the key server signs each full handshake (a client without extension 34)
DC          the proxy signs with the delegated credential (a client with extension 34)

In each round all sources take their turn, so that a slow moment hits all alike."""

from harness import net
from harness.deputy import HOST, Deputy
from harness.load import raw_lines
from harness.origin import Origin
from harness.stats import bootstrap, median, percentile

SOURCES = ("local key", "keyless", "DC")
CLIENTS = {"light": "handshakes", "nss": "nss"}


class Cell:
    """The latencies (ms) of one combination, by round."""

    def __init__(self):
        self.rounds = []
        self.failed = 0

    def all(self):
        return [ms for one in self.rounds for ms in one]

    def p(self, percent):
        return by_round(percent)(self.rounds)


def by_round(percent):
    """A percentile as the median of the rounds' own: one stall of the machine, which hits
    one round of one competitor, is not the figure then."""
    return lambda rounds: median([percentile(one, percent) for one in rounds if one])


class Lab:
    """The whole set-up: who listens where, and how a source is asked for."""

    def __init__(self, s):
        self.s = s
        cores = {"client": s.client_core, "proxy": s.server_core, "keyserver": s.client_core}
        self.net, why = net.make(s.procs, cores, s.programs["deputy-netdelay"], s.progress)
        s.cleanups.callback(self.net.close)
        s.result.note(f"distance: {self.net.method}" + (f" (because: {why})" if why else ""))
        where = self.net.where
        # The origin is beside the proxy: it answers at once and adds nothing.
        origin = Origin(s.procs, core=s.client_core, prefix=where["proxy"].prefix)
        self.deputy = Deputy(s.procs, s.programs, origin.address, proxy=where["proxy"],
                             keyserver=where["keyserver"])
        self.deputy.start_keyserver()
        self.deputy.start_issuer()
        self.deputy.start_proxy("proxy")
        self.sources = {"keyless": ("proxy", "off"), "DC": ("proxy", "on")}
        if s.has("deputy-proxy-local-key"):
            self.deputy.start_proxy("local", dc=False, local_key=True)
            self.sources["local key"] = ("local", "on")
        else:
            s.result.note("local key: deputy-proxy-local-key was not built")
        self.client = s.client(where["client"].prefix)

    def has_distance(self):
        return not isinstance(self.net, net.Loopback)

    def set_distance(self, client_ms, key_ms):
        self.net.set_round_trip("access", client_ms)
        self.net.set_round_trip("key", key_ms)

    def settle(self, client):
        """Lets TCP learn the new round trip: a connection that knew a shorter one takes
        the first packets for lost."""
        for source in self.sources:
            proxy, dc = self.sources[source]
            options = {"ca": self.deputy.ca_file} if client == "nss" else {}
            self.client(CLIENTS[client], target=self.deputy.address(proxy), server_name=HOST,
                        dc=dc, rate=50, duration=f"{int(self.s.p['round_s'] * 1000)}ms", **options)

    def shoot(self, cell, source, client, resume, label, rate, seconds, seed):
        """One round: latencies into the cell."""
        proxy, dc = self.sources[source]
        raw = self.s.raw_path(label)
        options = {"target": self.deputy.address(proxy), "server_name": HOST, "dc": dc,
                   "rate": rate, "arrivals": "poisson", "seed": seed, "label": label, "raw": raw,
                   "duration": f"{int(seconds * 1000)}ms", "resume": resume, "warmup": 3}
        if client == "light":
            options |= {"key_share": "fresh", "verify": 1}
        else:
            # A verification takes this client milliseconds: arrivals that meet each other
            # would wait for it, and not for the server.
            options |= {"ca": self.deputy.ca_file, "arrivals": "constant"}
        summary = self.s.result.count(self.client(CLIENTS[client], **options))
        cell.failed += summary["counts"]["failed"]
        wanted = "resumed" if resume else ("dc" if source == "DC" else "full")
        if summary["counts"][wanted] < summary["counts"]["ok"]:
            self.s.result.note(f"{label}: only {summary['counts'][wanted]} of "
                               f"{summary['counts']['ok']} were {wanted}")
        cell.rounds.append(latencies(raw))


def latencies(raw):
    """ms from when each handshake was due until it was done, from a raw file."""
    _, samples = raw_lines(raw)
    return [(x["handshake_us"] - x["scheduled_us"]) / 1000 for x in samples
            if x["result"] == "ok" and not x.get("warmup")]


def describe(cell):
    return f"{cell.p(50):.2f}", f"{cell.p(99):.2f}"


def compare(cell, base, percent):
    """(ratio, low, high) of a percentile to the baseline's, 95 % of the rounds drawn anew."""
    of = by_round(percent)
    value = cell.p(percent) / base.p(percent)
    low, high = bootstrap(lambda a, b: of(a) / of(b), cell.rounds, base.rounds, repeats=300)
    return value, min(low, value), max(high, value)


def measure_cells(lab, client, modes, key_ms, rounds, rate, seconds):
    """{(source, mode): Cell} at one distance."""
    cells = {(source, mode): Cell() for source in SOURCES if source in lab.sources
             for mode in modes}
    for i in range(rounds):
        lab.s.progress(f"{client} client, key server {key_ms} ms away, round {i + 1} of {rounds}")
        for (source, mode), cell in cells.items():
            label = f"{client}-{source.replace(' ', '-')}-{mode}-{key_ms}ms-{i + 1}"
            lab.shoot(cell, source, client, mode == "resumed", label.lower(), rate, seconds, i + 1)
    return cells


def sign_time_ms(lab):
    """What a signature takes at the key server beyond the round trip, nearest first."""
    deputy = lab.deputy
    identity = deputy.identity("proxy")
    summary = lab.s.client(lab.net.where["proxy"].prefix)(
        "keyserver", target=deputy.keyserver_address, host="keyserver.parts", ca=identity["ca"],
        certificate=identity["certificate"], key=identity["key"],
        sign_certificate=deputy.leaves[0].cert, count=200, warmup=20)
    return summary


def table_rows(cells, round_trip, mode, result, key_ms, client):
    rows = []
    base = cells.get(("local key", mode))
    for source in SOURCES:
        cell = cells.get((source, mode))
        if cell is None or not cell.all():
            continue
        p50, p99 = describe(cell)
        row = [f"{key_ms}", f"{round_trip:.2f}", source, mode, len(cell.all()), p50, p99]
        if base is None or base is cell or not base.all():
            row += ["-", "-", "-"]
        else:
            texts = []
            for percent in (50, 99):
                ratio, low, high = compare(cell, base, percent)
                texts.append(f"{ratio:.3f} ({low:.3f} to {high:.3f})")
                if mode == "full" and source == "DC":
                    keep_worst(result, f"{client}.dc_over_local.p{percent}", (ratio, low, high))
            row += [f"{cell.p(50) - base.p(50):+.2f}", *texts]
        rows.append(row)
    return rows


def keep_worst(result, name, found):
    """Over all distances, the largest counts."""
    was = result.measures.get(name)
    if was is None or found[0] > was["value"]:
        result.measure(name, *found)


def keyless_excess(result, cells, round_trip, sign_ms, key_ms, rows, client):
    """|keyless - local key - signature| against the round trip, where there is one."""
    keyless, base = cells.get(("keyless", "full")), cells.get(("local key", "full"))
    if not keyless or not base or not keyless.all() or not base.all():
        return
    added = keyless.p(50) - base.p(50)
    rows.append([f"{key_ms}", f"{round_trip:.2f}", f"{added:.2f}", f"{sign_ms:.2f}",
                 f"{(added - sign_ms - round_trip):+.2f}",
                 f"{abs(added - sign_ms - round_trip) / round_trip:.3f}" if key_ms else "-"])
    if key_ms:
        of = by_round(50)

        def off(a, b):
            return abs(of(a) - of(b) - sign_ms - round_trip) / round_trip

        low, high = bootstrap(off, keyless.rounds, base.rounds, repeats=300)
        value = off(keyless.rounds, base.rounds)
        keep_worst(result, f"{client}.keyless_excess", (value, min(low, value), max(high, value)))


def cdf_points(values, most=200):
    ordered = sorted(values)
    step = max(1, len(ordered) // most)
    return [[ordered[i], (i + 1) / len(ordered)] for i in range(0, len(ordered), step)]


def plot_cdf(s, every, client):
    series = []
    for (key_ms, source, mode), cell in every.items():
        if mode == "full" and cell.all() and (source == "keyless" or
                                              key_ms == max(k for k, _, _ in every)):
            series.append({"title": f"{source}, key server {key_ms} ms",
                           "points": cdf_points(cell.all())})
    s.result.plots.append({"name": f"cdf-{client}", "kind": "lines", "series": series,
                           "title": f"Full handshakes ({client} client {s.p['client_ms']} ms away)",
                           "xlabel": "latency, ms", "ylabel": "share of handshakes",
                           "yrange": [0, 1]})


def first_byte(s, lab, rows, key_ms):
    """Full handshakes with one small request after each: from when the client was due to
    connect until the first byte of the origin's answer, by source."""
    rounds = {source: [] for source in SOURCES if source in lab.sources}
    for i in range(s.p["first_byte_rounds"]):
        s.progress(f"first byte, key server {key_ms} ms away, round {i + 1} of"
                   f" {s.p['first_byte_rounds']}")
        for source, found in rounds.items():
            proxy, dc = lab.sources[source]
            label = f"first-byte-{source.replace(' ', '-')}-{key_ms}ms-{i + 1}".lower()
            raw = s.raw_path(label)
            s.result.count(lab.client(
                "handshakes", target=lab.deputy.address(proxy), server_name=HOST, dc=dc,
                rate=s.p["rate_per_s"], arrivals="poisson", seed=i + 1, label=label, raw=raw,
                duration=f"{int(s.p['round_s'] * 1000)}ms", warmup=3, key_share="fresh",
                requests=1, path="/small"))
            found.append([(x["first_byte_us"] - x["scheduled_us"]) / 1000
                          for x in raw_lines(raw)[1]
                          if x["result"] == "ok" and not x.get("warmup")])
    for source, found in rounds.items():
        rows.append([f"{key_ms}", source, sum(len(one) for one in found),
                     f"{by_round(50)(found):.2f}", f"{by_round(99)(found):.2f}"])


def study_client(s, lab, client, modes, rounds, rate, seconds):
    rows, excess, byte_rows, every = [], [], [], {}
    for key_ms in s.p["key_ms"] if lab.has_distance() else [0]:
        lab.set_distance(s.p["client_ms"] if lab.has_distance() else 0, key_ms)
        lab.settle(client)
        trip = lab.net.measure("key", 5)["median"]
        cells = measure_cells(lab, client, modes, key_ms, rounds, rate, seconds)
        # Before and after: the machine's mood moves the queue's timers too.
        trip = (trip + lab.net.measure("key", 5)["median"]) / 2
        for mode in modes:
            rows += table_rows(cells, trip, mode, s.result, key_ms, client)
        keyless_excess(s.result, cells, trip, lab.sign_ms, key_ms, excess, client)
        every |= {(key_ms, source, mode): cell for (source, mode), cell in cells.items()}
        if client == "light":
            first_byte(s, lab, byte_rows, key_ms)
    who = {"light": "light client", "nss": "NSS: chain, name, DC verified"}[client]
    s.result.table(f"Latency from due to done, in ms ({who})",
                   ["key server, ms", "measured", "key source", "handshake", "number", "p50", "p99",
                    "p50 - local key", "p50 ratio", "p99 ratio"], rows)
    if excess:
        s.result.table(f"What keyless adds at the median, in ms ({who})",
                       ["key server, ms", "measured round trip", "keyless - local key",
                        "signature", "left over", "left over / round trip"], excess)
    if byte_rows:
        s.result.table(f"To the first byte of the origin's answer, in ms ({who}, full handshakes)",
                       ["key server, ms", "key source", "number", "p50", "p99"], byte_rows)
    plot_cdf(s, every, client)
    return every


def run(s):
    lab = Lab(s)
    lab.set_distance(0, 0)
    signing = sign_time_ms(lab)
    latency = next(v for k, v in signing["latency_us"].items() if v.get("num"))
    lab.sign_ms = latency["p50"] / 1000
    if lab.has_distance():
        lab.set_distance(s.p["client_ms"], 0)
        trip = lab.net.measure("access")
        s.result.note(f"client to proxy: asked {s.p['client_ms']} ms, measured {trip['median']:.2f}"
                      f" ms ({trip['min']:.2f} to {trip['max']:.2f})")
    s.result.note(f"signature: the time of one request at a key server without distance, p50"
                  f" {lab.sign_ms:.3f} ms.")
    s.result.note("Open loop (light: Poisson, NSS: evenly spaced), latency from when each was due;"
                  " p50 and p99: of each round, then the median of the rounds; in brackets 95 %,"
                  " rounds drawn anew (bootstrap).")
    study_client(s, lab, "light", ("full", "resumed"), s.p["rounds"], s.p["rate_per_s"],
                 s.p["round_s"])
    study_client(s, lab, "nss", ("full",), s.p["nss_rounds"], s.p["nss_rate_per_s"],
                 s.p["nss_round_s"])
