"""ONNX's backend tests, as of version 1.23, for the operators of `onnx_adapter`: they judge the library.

The names are listed here, so that none is lost if ONNX or a filter changes, and so that pytest can list the
tests before ONNX has generated them, which takes seconds. test_onnx checks that no name is missing.
"""


def split(names):
    return {key: block.split() for key, block in names.items()}


# operator -> cases
JUDGED = split(
    {
        "AveragePool": """
            test_averagepool_2d_ceil test_averagepool_2d_ceil_last_window_starts_on_pad
            test_averagepool_2d_default test_averagepool_2d_dilations test_averagepool_2d_pads
            test_averagepool_2d_pads_count_include_pad test_averagepool_2d_precomputed_pads
            test_averagepool_2d_precomputed_pads_count_include_pad
            test_averagepool_2d_precomputed_same_upper test_averagepool_2d_precomputed_strides
            test_averagepool_2d_same_lower test_averagepool_2d_same_upper test_averagepool_2d_strides
            test_AvgPool1d test_AvgPool1d_stride test_AvgPool2d test_AvgPool2d_stride
        """,
        "BatchNormalization": """
            test_BatchNorm1d_3d_input_eval test_BatchNorm2d_eval test_BatchNorm2d_momentum_eval
            test_BatchNorm3d_eval test_BatchNorm3d_momentum_eval test_batchnorm_epsilon
            test_batchnorm_epsilon_training_mode test_batchnorm_example
            test_batchnorm_example_training_mode
        """,
        "Conv": """
            test_basic_conv_with_padding test_basic_conv_without_padding test_Conv2d
            test_Conv2d_depthwise test_Conv2d_depthwise_padded test_Conv2d_depthwise_strided
            test_Conv2d_depthwise_with_multiplier test_Conv2d_dilated test_Conv2d_groups
            test_Conv2d_groups_thnn test_Conv2d_no_bias test_Conv2d_padding test_Conv2d_strided
            test_conv_with_autopad_same test_conv_with_strides_and_asymmetric_padding
            test_conv_with_strides_no_padding test_conv_with_strides_padding test_operator_conv
        """,
        "Dropout": """
            test_dropout_default test_dropout_default_mask test_dropout_default_mask_ratio
            test_dropout_default_old test_dropout_default_ratio test_dropout_random_old
            test_training_dropout test_training_dropout_default test_training_dropout_default_mask
            test_training_dropout_mask test_training_dropout_zero_ratio
            test_training_dropout_zero_ratio_mask
        """,
        "Elu": """
            test_elu test_ELU test_elu_default test_elu_example
        """,
        "Flatten": """
            test_flatten_axis0 test_flatten_axis1 test_flatten_axis2 test_flatten_axis3
            test_flatten_default_axis test_flatten_negative_axis1 test_flatten_negative_axis2
            test_flatten_negative_axis3 test_flatten_negative_axis4 test_operator_flatten
            test_operator_view
        """,
        "Gelu": """
            test_gelu_default_1 test_gelu_default_2 test_gelu_tanh_1 test_gelu_tanh_2
        """,
        "Gemm": """
            test_gemm_all_attributes test_gemm_alpha test_gemm_beta test_gemm_default_matrix_bias
            test_gemm_default_no_bias test_gemm_default_scalar_bias
            test_gemm_default_single_elem_vector_bias test_gemm_default_vector_bias
            test_gemm_default_zero_bias test_gemm_transposeA test_gemm_transposeB test_Linear
            test_operator_addmm test_operator_mm
        """,
        "GlobalAveragePool": """
            test_globalaveragepool test_globalaveragepool_precomputed
        """,
        "GlobalMaxPool": """
            test_globalmaxpool test_globalmaxpool_precomputed
        """,
        "LayerNormalization": """
            test_layer_normalization_2d_axis0 test_layer_normalization_2d_axis1
            test_layer_normalization_2d_axis_negative_1 test_layer_normalization_2d_axis_negative_2
            test_layer_normalization_3d_axis0_epsilon test_layer_normalization_3d_axis1_epsilon
            test_layer_normalization_3d_axis2_epsilon test_layer_normalization_3d_axis_negative_1_epsilon
            test_layer_normalization_3d_axis_negative_2_epsilon
            test_layer_normalization_3d_axis_negative_3_epsilon test_layer_normalization_4d_axis0
            test_layer_normalization_4d_axis1 test_layer_normalization_4d_axis2
            test_layer_normalization_4d_axis3 test_layer_normalization_4d_axis_negative_1
            test_layer_normalization_4d_axis_negative_2 test_layer_normalization_4d_axis_negative_3
            test_layer_normalization_4d_axis_negative_4 test_layer_normalization_default_axis
        """,
        "LeakyRelu": """
            test_leakyrelu test_LeakyReLU test_leakyrelu_default test_leakyrelu_example
            test_LeakyReLU_with_negval
        """,
        "LogSoftmax": """
            test_log_softmax_dim3 test_log_softmax_lastdim test_LogSoftmax test_logsoftmax_axis_0
            test_logsoftmax_axis_1 test_logsoftmax_axis_2 test_logsoftmax_default_axis
            test_logsoftmax_example_1 test_logsoftmax_large_number test_logsoftmax_negative_axis
        """,
        "MatMul": """
            test_Linear_no_bias test_matmul_2d
        """,
        "MaxPool": """
            test_MaxPool2d test_MaxPool2d_stride_padding_dilation test_maxpool_2d_ceil
            test_maxpool_2d_ceil_output_size_reduce_by_one test_maxpool_2d_default
            test_maxpool_2d_dilations test_maxpool_2d_pads test_maxpool_2d_precomputed_pads
            test_maxpool_2d_precomputed_same_upper test_maxpool_2d_precomputed_strides
            test_maxpool_2d_same_lower test_maxpool_2d_same_upper test_maxpool_2d_strides
            test_maxpool_with_argmax_2d_precomputed_pads test_maxpool_with_argmax_2d_precomputed_strides
        """,
        "Relu": """
            test_relu test_ReLU test_single_relu_model
        """,
        "Sigmoid": """
            test_sigmoid test_Sigmoid test_sigmoid_example
        """,
        "Softmax": """
            test_Softmax test_softmax_axis_0 test_softmax_axis_1 test_softmax_axis_2
            test_softmax_default_axis test_softmax_example test_softmax_functional_dim3
            test_softmax_large_number test_softmax_lastdim test_softmax_negative_axis
        """,
        "SoftmaxCrossEntropyLoss": """
            test_sce_mean test_sce_mean_3d test_sce_mean_3d_log_prob test_sce_mean_log_prob
            test_sce_mean_no_weight_ii test_sce_mean_no_weight_ii_3d
            test_sce_mean_no_weight_ii_3d_log_prob test_sce_mean_no_weight_ii_4d
            test_sce_mean_no_weight_ii_4d_log_prob test_sce_mean_no_weight_ii_log_prob
            test_sce_mean_weight test_sce_mean_weight_ii test_sce_mean_weight_ii_3d
            test_sce_mean_weight_ii_3d_log_prob test_sce_mean_weight_ii_4d
            test_sce_mean_weight_ii_4d_log_prob test_sce_mean_weight_ii_log_prob
            test_sce_mean_weight_log_prob test_sce_NCd1_mean_weight_negative_ii
            test_sce_NCd1_mean_weight_negative_ii_log_prob test_sce_NCd1d2d3_none_no_weight_negative_ii
            test_sce_NCd1d2d3_none_no_weight_negative_ii_log_prob test_sce_NCd1d2d3_sum_weight_high_ii
            test_sce_NCd1d2d3_sum_weight_high_ii_log_prob test_sce_NCd1d2d3d4d5_mean_weight
            test_sce_NCd1d2d3d4d5_mean_weight_log_prob test_sce_NCd1d2d3d4d5_none_no_weight
            test_sce_NCd1d2d3d4d5_none_no_weight_log_prob test_sce_none test_sce_none_log_prob
            test_sce_none_weights test_sce_none_weights_log_prob test_sce_sum test_sce_sum_log_prob
        """,
        "Swish": """
            test_swish
        """,
        "Tanh": """
            test_tanh test_Tanh test_tanh_example
        """,
    }
)

# Reason for leaving cases out -> cases; test_onnx checks that each reason is true.
# - a function body: the definition of an operator in terms of others; the operator itself is judged.
# - one spatial axis, three spatial axes: the library's images have two.
# - not float32: the case is about integers.
# - not two matrices: Dense multiplies two.
# - other operators take part: they have no layer.
LEFT_OUT = split(
    {
        "a function body": """
            test_elu_default_expanded_ver18 test_elu_example_expanded_ver18 test_elu_expanded_ver18
            test_gelu_default_1_expanded test_gelu_default_2_expanded test_gelu_tanh_1_expanded
            test_gelu_tanh_2_expanded test_layer_normalization_2d_axis0_expanded
            test_layer_normalization_2d_axis0_expanded_ver18 test_layer_normalization_2d_axis1_expanded
            test_layer_normalization_2d_axis1_expanded_ver18
            test_layer_normalization_2d_axis_negative_1_expanded
            test_layer_normalization_2d_axis_negative_1_expanded_ver18
            test_layer_normalization_2d_axis_negative_2_expanded
            test_layer_normalization_2d_axis_negative_2_expanded_ver18
            test_layer_normalization_3d_axis0_epsilon_expanded
            test_layer_normalization_3d_axis0_epsilon_expanded_ver18
            test_layer_normalization_3d_axis1_epsilon_expanded
            test_layer_normalization_3d_axis1_epsilon_expanded_ver18
            test_layer_normalization_3d_axis2_epsilon_expanded
            test_layer_normalization_3d_axis2_epsilon_expanded_ver18
            test_layer_normalization_3d_axis_negative_1_epsilon_expanded
            test_layer_normalization_3d_axis_negative_1_epsilon_expanded_ver18
            test_layer_normalization_3d_axis_negative_2_epsilon_expanded
            test_layer_normalization_3d_axis_negative_2_epsilon_expanded_ver18
            test_layer_normalization_3d_axis_negative_3_epsilon_expanded
            test_layer_normalization_3d_axis_negative_3_epsilon_expanded_ver18
            test_layer_normalization_4d_axis0_expanded test_layer_normalization_4d_axis0_expanded_ver18
            test_layer_normalization_4d_axis1_expanded test_layer_normalization_4d_axis1_expanded_ver18
            test_layer_normalization_4d_axis2_expanded test_layer_normalization_4d_axis2_expanded_ver18
            test_layer_normalization_4d_axis3_expanded test_layer_normalization_4d_axis3_expanded_ver18
            test_layer_normalization_4d_axis_negative_1_expanded
            test_layer_normalization_4d_axis_negative_1_expanded_ver18
            test_layer_normalization_4d_axis_negative_2_expanded
            test_layer_normalization_4d_axis_negative_2_expanded_ver18
            test_layer_normalization_4d_axis_negative_3_expanded
            test_layer_normalization_4d_axis_negative_3_expanded_ver18
            test_layer_normalization_4d_axis_negative_4_expanded
            test_layer_normalization_4d_axis_negative_4_expanded_ver18
            test_layer_normalization_default_axis_expanded
            test_layer_normalization_default_axis_expanded_ver18 test_leakyrelu_default_expanded
            test_leakyrelu_example_expanded test_leakyrelu_expanded test_logsoftmax_axis_0_expanded
            test_logsoftmax_axis_0_expanded_ver18 test_logsoftmax_axis_1_expanded
            test_logsoftmax_axis_1_expanded_ver18 test_logsoftmax_axis_2_expanded
            test_logsoftmax_axis_2_expanded_ver18 test_logsoftmax_default_axis_expanded
            test_logsoftmax_default_axis_expanded_ver18 test_logsoftmax_example_1_expanded
            test_logsoftmax_example_1_expanded_ver18 test_logsoftmax_large_number_expanded
            test_logsoftmax_large_number_expanded_ver18 test_logsoftmax_negative_axis_expanded
            test_logsoftmax_negative_axis_expanded_ver18 test_relu_expanded_ver18
            test_sce_mean_3d_expanded test_sce_mean_3d_log_prob_expanded test_sce_mean_expanded
            test_sce_mean_log_prob_expanded test_sce_mean_no_weight_ii_3d_expanded
            test_sce_mean_no_weight_ii_3d_log_prob_expanded test_sce_mean_no_weight_ii_4d_expanded
            test_sce_mean_no_weight_ii_4d_log_prob_expanded test_sce_mean_no_weight_ii_expanded
            test_sce_mean_no_weight_ii_log_prob_expanded test_sce_mean_weight_expanded
            test_sce_mean_weight_ii_3d_expanded test_sce_mean_weight_ii_3d_log_prob_expanded
            test_sce_mean_weight_ii_4d_expanded test_sce_mean_weight_ii_4d_log_prob_expanded
            test_sce_mean_weight_ii_expanded test_sce_mean_weight_ii_log_prob_expanded
            test_sce_mean_weight_log_prob_expanded test_sce_NCd1_mean_weight_negative_ii_expanded
            test_sce_NCd1_mean_weight_negative_ii_log_prob_expanded
            test_sce_NCd1d2d3_none_no_weight_negative_ii_expanded
            test_sce_NCd1d2d3_none_no_weight_negative_ii_log_prob_expanded
            test_sce_NCd1d2d3_sum_weight_high_ii_expanded
            test_sce_NCd1d2d3_sum_weight_high_ii_log_prob_expanded
            test_sce_NCd1d2d3d4d5_mean_weight_expanded
            test_sce_NCd1d2d3d4d5_mean_weight_log_prob_expanded
            test_sce_NCd1d2d3d4d5_none_no_weight_expanded
            test_sce_NCd1d2d3d4d5_none_no_weight_log_prob_expanded test_sce_none_expanded
            test_sce_none_log_prob_expanded test_sce_none_weights_expanded
            test_sce_none_weights_log_prob_expanded test_sce_sum_expanded test_sce_sum_log_prob_expanded
            test_softmax_axis_0_expanded test_softmax_axis_0_expanded_ver18 test_softmax_axis_1_expanded
            test_softmax_axis_1_expanded_ver18 test_softmax_axis_2_expanded
            test_softmax_axis_2_expanded_ver18 test_softmax_default_axis_expanded
            test_softmax_default_axis_expanded_ver18 test_softmax_example_expanded
            test_softmax_example_expanded_ver18 test_softmax_large_number_expanded
            test_softmax_large_number_expanded_ver18 test_softmax_negative_axis_expanded
            test_softmax_negative_axis_expanded_ver18 test_swish_expanded
        """,
        "one spatial axis": """
            test_averagepool_1d_default test_Conv1d test_Conv1d_dilated test_Conv1d_groups
            test_Conv1d_pad1 test_Conv1d_pad1size1 test_Conv1d_pad2 test_Conv1d_pad2size1
            test_Conv1d_stride test_MaxPool1d test_MaxPool1d_stride
            test_MaxPool1d_stride_padding_dilation test_maxpool_1d_default test_operator_maxpool
        """,
        "three spatial axes": """
            test_averagepool_3d_default
            test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False
            test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True
            test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False
            test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True
            test_averagepool_3d_dilations_small test_AvgPool3d test_AvgPool3d_stride
            test_AvgPool3d_stride1_pad0_gpu_input test_Conv3d test_Conv3d_dilated
            test_Conv3d_dilated_strided test_Conv3d_groups test_Conv3d_no_bias test_Conv3d_stride
            test_Conv3d_stride_padding test_MaxPool3d test_MaxPool3d_stride test_MaxPool3d_stride_padding
            test_maxpool_3d_default test_maxpool_3d_dilations test_maxpool_3d_dilations_use_ref_impl
            test_maxpool_3d_dilations_use_ref_impl_large
        """,
        "not float32": """
            test_maxpool_2d_uint8
        """,
        "not two matrices": """
            test_matmul_1d_1d test_matmul_1d_3d test_matmul_3d test_matmul_4d test_matmul_4d_1d
            test_matmul_bcast
        """,
        "other operators take part": """
            test_GLU test_GLU_dim test_operator_basic test_operator_params test_Softmin
        """,
    }
)
