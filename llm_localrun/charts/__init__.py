"""Charts as SVG: a line chart and a bar chart, without a plotting library."""
