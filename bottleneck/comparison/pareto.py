"""The Pareto front: what nothing else beats in both cost and accuracy."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Return the places on the Pareto front, by increasing cost.

    A place is on the front if no other one costs at most as much and is at least as accurate, and is better in one of
    both. Equal places are on it together.

    Parameters
    ----------
    costs, accuracies : sequence of float, length n
    """
    front, best = list[int](), float("-inf")
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -accuracies[place], place))
    for place in order:
        accuracy = accuracies[place]
        same = bool(front) and accuracy == best and costs[place] == costs[front[-1]]
        if accuracy > best or same:
            front.append(place)
            best = accuracy
    return front
