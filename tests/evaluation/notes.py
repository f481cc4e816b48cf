"""Notes that tests expect word for word."""


def few(category, n):
    """Return the note on a category whose threshold rests on a few training images."""
    return (
        f"{category}: the threshold rests on {n} good images: it aims at 5 % of false alarms, "
        "which takes 19 to show; add more good images, or calibrate with more"
    )
