"""The colours of classes, in reports and on pictures."""

# Okabe and Ito's palette for the colour-blind; gray for black and a darker yellow show on light and dark pages alike.
GRAY = "#808080"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", GRAY, "#B8A400")
OF_CLASSES = tuple(colour for colour in PALETTE if colour != GRAY)  # where gray is for what is unknown
