"""Scoring against reference annotations by the rules of ANSI/AAMI EC57.

A Python reading of the WFDB evaluation programs (George B. Moody, https://github.com/bemoody/wfdb,
`app/`, revisions of 2010 to 2020): `beats` follows bxb, `runs` rxr, `episodes` epicmp, `rates` mxm,
`summary` sumstats. Written from the published algorithms, in our own words; where we depart from
a program the module says so. Times are samples of the record, int64.
"""
