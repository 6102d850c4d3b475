package com.atguigu.yygh.model.order;

import java.math.BigDecimal;

/** How many orders a hospital has. */
public record HospitalCount(String hoscode, int placed, int cancelled, BigDecimal amount) {
}
