/* SPDX-License-Identifier: Apache-2.0
 * Vectors that stand in for a residual in controls: random directions, jitter, other lengths. Draws
 * come from the counter-based generator, so that a stream names one vector on every machine; all
 * arithmetic is fp64 in the order of the elements, rounded to fp32 once. */
#ifndef PF_ANALYSIS_DIRECTION_H
#define PF_ANALYSIS_DIRECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* |x|; |a - b|. */
double pf_norm(const float *x, size_t d);
double pf_distance(const float *a, const float *b, size_t d);
/* out = x + scale * u; x NULL: 0. */
void pf_add_scaled(const float *x, const double *u, double scale, size_t d, float *out);
/* Standard normal numbers (Box and Muller 1958). */
void pf_normals(uint64_t stream, size_t d, double *out);
/* A normal vector with the covariance of n vectors about their mean: sum_k z_k (v_k - mean).
 * Bits 32 to 43 of the stream are its own: they count the vectors. */
void pf_covariance_draw(const float *const *v, size_t n, uint64_t stream, size_t d, double *out);
/* u * (length / |u|); left alone where it is 0. */
void pf_set_length(double *u, double length, size_t d);
/* Every element that is not 0 one unit in the last place up or down, of fp32 or of bf16. */
void pf_jitter(const float *x, bool bf16, uint64_t stream, size_t d, float *out);
/* Means over n vectors. */
void pf_mean_vector(const float *const *v, size_t n, size_t d, float *out);
/* What mu + a_i + b_j, fitted by least squares to all cells of the table h[i * n_tasks + j] but
 * (i, j), says of that cell (Yates 1933): (P row + T column - all) / ((P - 1)(T - 1)), sums over
 * the other cells. False when there are fewer than two personas or tasks. */
bool pf_two_way_fit(const float *const *h, size_t n_personas, size_t n_tasks, size_t i, size_t j,
                    size_t d, float *out);
/* Share of the spread of the table's vectors that mu + a_i + b_j takes. */
double pf_r2_two_way(const float *const *h, size_t n_personas, size_t n_tasks, size_t d);

#endif
