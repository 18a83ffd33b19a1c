"""What parameters are spent on: UDD's policies over windows and over DCT coefficients, and real images by rule."""
