"""What is told of functional urban areas: how sure they are, agreement, rates, desire lines."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qala.commuting import (
    DECAY_KM_EXPONENTIAL,
    Decay,
    Flows,
    as_ids,
    huff_shares,
)
from qala.errors import InputError
from qala.fua import Areas, Found, Frame, Sensitivity, assign_units
from qala.messages import tr
from qala.vector import some

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

log = logging.getLogger("qala")

#: variants of the sensitivity band: thresholds, and β times these factors
THRESHOLDS = (0.10, 0.15, 0.20, 0.25)
BETA_FACTORS = (0.6, 0.8, 1.0, 1.2, 1.4)
#: share between two cities from which their pair is told of
_NEAR = 0.05
#: share of agreeing variants from which a verdict is called sure
_SURE = 0.9


# --- sensitivity ------------------------------------------------------------------


def area_sensitivity(
    areas: Areas,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    beta_factors: Sequence[float] = BETA_FACTORS,
    decays: Sequence[Decay] | None = None,
) -> Areas:
    """Run the rules again over thresholds, β and forms of the decay, and count what stays.

    The threshold of merging moves with that of the zone, since both are the
    same 15 % in the definition. With given flows only the thresholds vary.

    Parameters
    ----------
    areas
        Result of :func:`functional_areas`.
    thresholds
        Shares of employed residents.
    beta_factors
        Factors on β of an estimate; ± 40 % by default.
    decays
        Forms of the decay besides that of the areas; default: the plain
        exponential, where the areas use another. Which form is right away from
        where it was calibrated is as open as its β.

    Returns
    -------
    Areas
        The same areas with ``sensitivity``, and ``stability`` and ``in_area``
        in the membership.

    Raises
    ------
    InputError
        When the areas did not come from :func:`functional_areas`.
    """
    import pandas as pd

    frame, flows = areas._frame, areas.flows
    if frame is None or flows is None:
        raise InputError("these areas rest on no flows", "areas of functional_areas")
    base = assign_units(
        frame, flows, areas.settings["threshold"], areas.settings["merge_threshold"]
    )
    forms: list[Decay | None] = [flows.decay]
    factors: tuple[float, ...] = (1.0,)
    if flows.decay is not None:
        plain = DECAY_KM_EXPONENTIAL
        if flows.decay.per == "min":
            plain = plain.in_minutes(frame.commuters.km_a_minute)
        others = ([plain] if flows.decay.shape != 1 else []) if decays is None else decays
        forms, factors = [flows.decay, *others], tuple(beta_factors)
    claim = np.where(base.area >= 0, base.area, base.best)
    base_zone = (base.area >= 0) & (frame.city < 0)
    people = frame.population if frame.population.any() else flows.employed
    count = len(frame.cities)
    agree = np.zeros(len(frame.ids))
    inside = np.zeros(len(frame.ids))
    together = np.zeros((count, count))
    lowest, highest = np.full((count, count), np.inf), np.zeros((count, count))
    rows = []
    for form, factor in product(forms, factors):
        varied = flows if form is None else _with_decay(frame, flows, form.scaled(factor))
        between = _between_cities(frame, varied, count)
        lowest, highest = np.minimum(lowest, between), np.maximum(highest, between)
        for threshold in thresholds:
            found = assign_units(
                frame, varied, threshold, None if frame.merge_threshold is None else threshold
            )
            # the area of the city claimed, whatever leads it in this variant
            same = (found.area >= 0) & (claim >= 0) & (found.area == found.group[claim])
            inside += same
            agree += np.where(base.area >= 0, same, found.area < 0)
            together += found.group[:, None] == found.group[None, :]
            zone = (found.area >= 0) & (frame.city < 0)
            either = people[zone | base_zone].sum()
            rows.append(
                {
                    "threshold": threshold,
                    "beta_factor": factor,
                    "beta": varied.decay.beta if varied.decay else np.nan,
                    "shape": varied.decay.shape if varied.decay else np.nan,
                    "areas": len(set(found.group.tolist())),
                    "zone_units": int(zone.sum()),
                    "core_population": float(people[frame.city >= 0].sum()),
                    "zone_population": float(people[zone].sum()),
                    "population_share": float(people[found.area >= 0].sum() / people.sum()),
                    "jaccard": float(people[zone & base_zone].sum() / either) if either else 1.0,
                }
            )
    number = len(rows)
    sensitivity = Sensitivity(
        variants=pd.DataFrame(rows),
        stability=pd.Series(agree / number, index=frame.ids, name="stability"),
        in_area=pd.Series(inside / number, index=frame.ids, name="in_area"),
        joined=_joined(frame, flows, base, together / number, lowest, highest, areas.settings),
    )
    membership = areas.membership.assign(stability=agree / number, in_area=inside / number)
    return replace(areas, membership=membership, sensitivity=sensitivity)


def _with_decay(frame: Frame, flows: Flows, decay: Decay) -> Flows:
    """Return the estimate with another decay, from costs at hand."""
    if decay == flows.decay:
        return flows
    given = frame.commuters
    if given.jobs_known:
        decay = decay.with_jobs()
    shares = huff_shares(
        cast("csr_matrix", given.costs), cast("Floats", given.pull), decay, flows.employed,
        given.nearby,
    )  # fmt: skip
    shares.data *= np.repeat(flows.employed, np.diff(shares.indptr))
    return replace(flows, matrix=shares, decay=decay)


def _joined(
    frame: Frame,
    flows: Flows,
    base: Found,
    together: Floats,
    lowest: Floats,
    highest: Floats,
    settings: Mapping[str, Any],
) -> pd.DataFrame:
    """Return the pairs of cities that are one area in some variant, or near it."""
    import pandas as pd

    count = len(frame.cities)
    shares = _between_cities(frame, flows, count)
    core = frame.city >= 0
    size = np.bincount(frame.city[core], flows.employed[core], count)
    near = (together > 0) | (highest >= _NEAR) | (highest.T >= _NEAR)
    a, b = np.nonzero(np.triu(near, 1))
    # the smaller of the two is the one that would join
    a, b = np.where(size[a] <= size[b], a, b), np.where(size[a] <= size[b], b, a)
    one = base.group[a] == base.group[b]
    table = pd.DataFrame(
        {
            "city": [frame.cities[i] for i in a],
            "other": [frame.cities[j] for j in b],
            "share": shares[a, b],
            "lowest": lowest[a, b],
            "highest": highest[a, b],
            "base": one,
            "variants": together[a, b],
        }
    )
    # cities taken as given are no answer of the rules
    given = frame.merge_threshold is None
    table["verdict"] = _verdicts(table, frame.names, settings, given, flows.estimated)
    doubt = (table["variants"] - 0.5).abs().round(6)
    return (
        table.assign(doubt=doubt)
        .sort_values(
            ["doubt", "highest", "city", "other"], ascending=[True, False, True, True],
            ignore_index=True,
        )
        .drop(columns="doubt")
    )  # fmt: skip


def _verdicts(
    table: pd.DataFrame,
    names: Mapping[str, str],
    settings: Mapping[str, Any],
    given: bool,
    estimated: bool,
) -> list[str]:
    """Return a sentence a pair of cities: one area or two, and how sure."""
    from qala.figures import number, percent

    lang, limit = str(settings["lang"]), settings["threshold"]
    texts = []
    for row in table.to_dict("records"):
        agreed = float(row["variants"] if row["base"] else 1 - row["variants"])
        if given:
            key = "areas.given_above" if row["share"] >= limit else "areas.given_below"
        else:
            key = "areas.one" if row["base"] else "areas.two"
        low = number(100 * row["lowest"], lang, digits=1)
        high = percent(row["highest"], lang)
        # the share of given flows hangs on no variant
        span = tr("areas.range", lang, lowest=low, highest=high) if estimated else ""
        texts.append(
            tr(
                key, lang, city=names[row["city"]], other=names[row["other"]],
                share=percent(row["share"], lang), range=span,
                variants=percent(agreed, lang, digits=0), limit=percent(limit, lang, digits=0),
                sure=tr(_how_sure(agreed), lang),
            )
        )  # fmt: skip
    return texts


def told_in(areas: Areas, names: Mapping[str, str], lang: str) -> Areas:
    """Return areas with other names of cities, and the verdicts on pairs in another language.

    Parameters
    ----------
    areas
        Result of :func:`qala.fua.functional_areas` or of a baseline.
    names
        City id → name; others keep theirs.
    lang
        ``en``, ``ru`` or ``kk``. Reasons of the membership stay as they are.
    """
    label = dict(zip(areas.cities["city"], areas.cities["name"], strict=True)) | dict(names)
    settings = {**areas.settings, "lang": lang}
    layers = [
        layer.assign(name=layer["area"].map(label))
        for layer in (areas.areas, areas.cores, areas.zones)
    ]
    sensitivity = areas.sensitivity
    if sensitivity is not None and areas.flows is not None:
        given = settings.get("merge_threshold") is None
        texts = _verdicts(sensitivity.joined, label, settings, given, areas.flows.estimated)
        sensitivity = replace(sensitivity, joined=sensitivity.joined.assign(verdict=texts))
    return replace(
        areas, areas=layers[0], cores=layers[1], zones=layers[2], settings=settings,
        cities=areas.cities.assign(name=areas.cities["city"].map(label)), sensitivity=sensitivity,
    )  # fmt: skip


def _how_sure(agreed: float) -> str:
    """Return the message for a share of agreeing variants."""
    if agreed >= _SURE:
        return "areas.sure"
    return "areas.not_sure" if agreed >= 0.5 else "areas.contradicted"


def _between_cities(frame: Frame, flows: Flows, count: int) -> Floats:
    """Return the share of each city's employed residents that work in each other city."""
    core = np.flatnonzero(frame.city >= 0)
    pairs = flows.matrix[core][:, core].tocoo()
    sums = np.zeros((count, count))
    np.add.at(sums, (frame.city[core[pairs.row]], frame.city[core[pairs.col]]), pairs.data)
    employed = np.bincount(frame.city[core], flows.employed[core], count)[:, None]
    return np.divide(sums, employed, out=np.zeros_like(sums), where=employed > 0)


# --- comparison -------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How far two memberships of the same units agree.

    Attributes
    ----------
    in_or_out
        Units that are in an area in both, or outside in both.
    same_area
        Units in the same area (areas matched by their most shared core people) or
        outside in both.
    units
        Units compared.
    jaccard, jaccard_people
        Shared over joint commuting-zone units, core units of either left out;
        counted, and weighted by people.
    areas
        Area by area: ``area``, ``reference``, ``units``, ``reference_units``,
        ``shared_units``, ``jaccard``, ``jaccard_people``.
    """

    in_or_out: int
    same_area: int
    units: int
    jaccard: float
    jaccard_people: float
    areas: pd.DataFrame


def compare_areas(
    membership: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    people: Floats | None = None,
) -> Agreement:
    """Compare a membership with another of the same units.

    Parameters
    ----------
    membership, reference
        Tables with ``unit``, ``area`` (missing outside) and ``role``; the order
        of units may differ.
    people
        Weight of each row of ``membership``; default: its ``population``.

    Returns
    -------
    Agreement
        Counts, Jaccard indices, and the areas one by one.

    Raises
    ------
    InputError
        When the tables are of different units.
    """
    import pandas as pd

    ours = membership.set_index(as_ids(membership["unit"]))
    theirs = reference.set_index(as_ids(reference["unit"]))
    if set(ours.index) != set(theirs.index):
        lost = sorted(set(ours.index) ^ set(theirs.index))
        raise InputError(f"{len(lost)} units are in one table only: {some(lost)}", "the same units")
    theirs = theirs.loc[ours.index]
    weight = ours["population"].to_numpy(dtype=np.float64) if people is None else np.asarray(people)
    weight = np.nan_to_num(weight)
    a = ours["area"].astype(object).where(ours["area"].notna(), None).to_numpy()
    b = theirs["area"].astype(object).where(theirs["area"].notna(), None).to_numpy()
    in_a, in_b = np.array([v is not None for v in a]), np.array([v is not None for v in b])
    core = (ours["role"] == "core").to_numpy() | (theirs["role"] == "core").to_numpy()
    pairs = pd.DataFrame({"a": a, "b": b, "core": core, "w": weight + 1e-9})[in_a & in_b]
    # areas are matched where they share most people, cores first
    matched: dict[Any, Any] = {}
    ranked = pairs.groupby(["a", "b"]).agg(core=("core", "max"), w=("w", "sum")).reset_index()
    for row in ranked.sort_values(["core", "w"], ascending=False).itertuples():
        if row.a not in matched and row.b not in matched.values():
            matched[row.a] = row.b
    same = np.array([matched.get(x, "?") == y if x is not None else False
                     for x, y in zip(a, b, strict=True)])  # fmt: skip
    zone_a, zone_b = in_a & ~core, in_b & ~core
    rows = []
    for ref in sorted({v for v in b if v is not None}):
        own = next((k for k, v in matched.items() if v == ref), None)
        left, right = (a == own) & in_a, b == ref
        both, either = left & right & ~core, (left | right) & ~core
        rows.append(
            {
                "area": own,
                "reference": ref,
                "units": int(left.sum()),
                "reference_units": int(right.sum()),
                "shared_units": int((left & right).sum()),
                "jaccard": both.sum() / either.sum() if either.any() else np.nan,
                "jaccard_people": weight[both].sum() / weight[either].sum()
                if weight[either].sum() > 0
                else np.nan,
            }
        )
    return Agreement(
        in_or_out=int((in_a == in_b).sum()),
        same_area=int((same | (~in_a & ~in_b)).sum()),
        units=len(ours),
        jaccard=_jaccard(zone_a, zone_b, np.ones(len(ours))),
        jaccard_people=_jaccard(zone_a, zone_b, weight),
        areas=pd.DataFrame(rows),
    )


def _jaccard(a: Bools, b: Bools, weight: Floats) -> float:
    either = weight[a | b].sum()
    return float(weight[a & b].sum() / either) if either else 1.0


# --- rates ------------------------------------------------------------------------


def area_rates(
    membership: pd.DataFrame,
    *,
    reporting: Mapping[str, str] | pd.Series | None = None,
    official: pd.DataFrame | Mapping[str, float] | pd.Series | None = None,
    total: str = "total",
) -> pd.DataFrame:
    """Return people in cities, commuting zones and outside, by reporting unit.

    Parameters
    ----------
    membership
        With ``unit``, ``role``, ``population``.
    reporting
        Reporting unit (such as the oblast) of each unit; default: all are one.
    official
        Official figures by reporting unit: a table of one epoch as
        :func:`qala.rates.read_official` gives it, or urban people. The total
        needs figures of all reporting units, or one of its own.
    total
        Name of the row for all units; given where there are several reporting
        units.

    Returns
    -------
    pandas.DataFrame
        ``unit``, ``population``, ``core``, ``zone``, ``outside`` (people),
        ``core_share``, ``zone_share``, ``outside_share``, ``area_share`` (core
        and zone), ``official_urban`` (people), ``official_share``, ``ratio``
        (official share over area share; missing where nobody lives in an area).

    Raises
    ------
    InputError
        When units have no reporting unit, no people are known, or official
        figures are of other reporting units.
    """
    import pandas as pd

    ids = as_ids(membership["unit"])
    people = membership["population"].to_numpy(dtype=np.float64)
    if not np.isfinite(people).any():
        raise InputError("the people of the units are not known", "membership with population")
    group: Any = np.full(len(ids), total, dtype=object)
    if reporting is not None:
        where = pd.Series(reporting, dtype=object)
        where.index = as_ids(where.index)
        group = where.reindex(ids).to_numpy(dtype=object)
        lost = ids[pd.isna(group)]
        if len(lost):
            raise InputError(f"{len(lost)} units have no reporting unit: {some(lost)}", "one each")
    table = pd.DataFrame({"unit": group, "role": membership["role"].to_numpy(), "people": people})
    sums = table.pivot_table(
        index="unit", columns="role", values="people", aggfunc="sum", fill_value=0.0
    ).reindex(columns=["core", "zone", "outside"], fill_value=0.0)
    if reporting is not None and len(sums) > 1:
        sums.loc[total] = sums.sum()
    whole = sums.sum(axis=1)
    urban, share = _official_on(official, whole, total)
    shares = sums.div(whole.where(whole > 0), axis=0)
    inside = shares["core"] + shares["zone"]
    return pd.DataFrame(
        {
            "unit": sums.index,
            "population": whole,
            "core": sums["core"],
            "zone": sums["zone"],
            "outside": sums["outside"],
            "core_share": shares["core"],
            "zone_share": shares["zone"],
            "outside_share": shares["outside"],
            "area_share": inside,
            "official_urban": urban,
            "official_share": share,
            "ratio": share / inside.where(inside > 0),
        }
    ).reset_index(drop=True)


def _official_on(official: Any, whole: pd.Series, total: str) -> tuple[pd.Series, pd.Series]:
    """Return official urban people and shares on reporting units with their total."""
    import pandas as pd

    blank = pd.Series(np.nan, index=whole.index)
    if official is None:
        return blank, blank
    if isinstance(official, pd.DataFrame):
        table = official.set_index(as_ids(official["unit"]))
        share = table["official_share"].astype(np.float64)
        # shares published without counts are shares of the people on the grid
        base = table["official_population"].astype(np.float64)
        base = base.fillna(whole.reindex(table.index))
    else:
        told = pd.Series(official, dtype=np.float64)
        base = whole.reindex(told.index)
        share = told / base
    strange = [u for u in share.index if u not in whole.index and u != total]
    if strange:
        raise InputError(
            f"official figures name {len(strange)} units that are not reported on: {some(strange)}",
            f"reporting units such as {some(whole.index)}",
            "correct the ids, or take out rows that are no units",
        )
    share, base = share.reindex(whole.index), base.reindex(whole.index)
    without = [u for u in whole.index if pd.isna(share[u]) and u != total]
    if without:
        log.warning("%d reporting units have no official figure: %s", len(without), some(without))
    if total in whole.index and pd.isna(share[total]) and not without:
        parts = [u for u in whole.index if u != total]
        base[total] = base[parts].sum()
        share[total] = float((share[parts] * base[parts]).sum() / base[total])
    return share * base, share


def official_at(table: pd.DataFrame, epoch: Any = None) -> pd.DataFrame:
    """Return the official figures of one epoch.

    Parameters
    ----------
    table
        From :func:`qala.rates.read_official`.
    epoch
        The wanted one; a table without epochs, or of a single one, serves any.

    Raises
    ------
    InputError
        When the table holds several epochs and none is wanted, or not that.
    """
    epochs = list(dict.fromkeys(table["epoch"]))
    if len(epochs) == 1:
        if epoch is not None and epochs[0] is not None and str(epoch) != str(epochs[0]):
            log.warning("official figures of %s stand beside people of %s", epochs[0], epoch)
        return table
    if epoch is None or str(epoch) not in {str(e) for e in epochs}:
        raise InputError(
            f"official figures are of {some(epochs)}, the people of {epoch or 'no known epoch'}",
            "figures of the population's epoch",
            "keep the rows of one epoch, or name it with --epoch",
        )
    return table[table["epoch"].astype(str) == str(epoch)]


# --- flows as lines ---------------------------------------------------------------


def desire_lines(
    flows: Flows,
    units: gpd.GeoDataFrame,
    *,
    points: gpd.GeoSeries | None = None,
    minimum: float = 100.0,
    membership: pd.DataFrame | None = None,
) -> gpd.GeoDataFrame:
    """Return flows between units as straight lines.

    Parameters
    ----------
    flows
        Given or estimated.
    units
        The units of the flows, in their order.
    points
        Ends of the lines; default: a point inside each unit.
    minimum
        Smaller flows are left out, commuters.
    membership
        Keep only flows into core units of areas.

    Returns
    -------
    geopandas.GeoDataFrame
        ``origin``, ``destination``, ``commuters``, ``share`` (of the origin's
        employed residents), ``estimated``; largest first; CRS of the units.
    """
    import geopandas as gpd
    import shapely

    pairs = flows.matrix.tocoo()
    keep = (pairs.row != pairs.col) & (pairs.data >= minimum)
    if membership is not None:
        keep &= (membership["role"] == "core").to_numpy()[pairs.col]
    row, col, value = pairs.row[keep], pairs.col[keep], pairs.data[keep]
    order = np.lexsort((flows.ids[col].astype(str), flows.ids[row].astype(str), -value))
    row, col, value = row[order], col[order], value[order]
    ends = units.geometry.representative_point() if points is None else points.to_crs(units.crs)
    at = np.column_stack([np.asarray(ends.x), np.asarray(ends.y)])
    return gpd.GeoDataFrame(
        {
            "origin": flows.ids[row],
            "destination": flows.ids[col],
            "commuters": value,
            "share": value / flows.employed[row],
            "estimated": np.full(value.size, flows.estimated),
        },
        geometry=shapely.linestrings(np.stack([at[row], at[col]], axis=1)),
        crs=units.crs,
    )
