"""What ``captum-mi evaluate`` does: every method on every pair of a data set, judged."""
